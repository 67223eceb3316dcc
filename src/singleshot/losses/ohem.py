"""Online hard example mining (OHEM), which the focal loss paper compares with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.sigmoid import BalancedCrossEntropy, SigmoidLink
from singleshot.ops.nms import nms_sorted
from singleshot.structures import Matched, Predictions

Take = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Survivors [B, N] and their anchors, hardest first -> which of them count, and which images need no more."""

_FIRST = 1024  # start with this many of an image's hardest anchors; double the number until the batch is full


@dataclass(frozen=True)
class OHEMLoss(SigmoidLink):
    """Cross-entropy of the hardest anchors of each image (RetinaNet paper, section 5.1 and Table 1d).

    Online hard example mining is by Shrivastava et al., 2016, arXiv 1604.03540.

    The loss of an anchor is its sigmoid cross-entropy summed over the classes. In each image all anchors go through
    NMS by loss. `nms` is the IoU of anchors above which the easier one is dropped; None: no NMS. The `batch_size`
    hardest survivors count. The paper does not say whether its batch is per image or for all images. Here it is per
    image, so that what an image teaches does not depend on the other images of the batch.

    `ratio` is the paper's "OHEM 1:3": "after applying nms to all examples, the minibatch is constructed to enforce a
    1:3 ratio between positives and negatives". Among the survivors the hardest positives count, at most their share of
    the batch, batch_size / (1 + ratio). For each of these positives, the `ratio` hardest negatives count. So at most
    `batch_size` anchors count. NMS may drop a positive that overlaps a harder anchor, like any other anchor. An image
    without positives has no negatives either.

    `keep_positives` reads `ratio` as SSD's mining does: all positives count, whatever their loss and overlap. NMS is
    applied to the negatives only. Up to `ratio` negatives count for each positive of the image, at most their share of
    the batch. So every matched anchor teaches, but a batch of 8 may have 14 anchors.

    `candidates`: only this many of an image's hardest anchors go through NMS; easier ones cannot count. None is no
    limit, as in the paper. A limit changes the result only if the batch is not full within it, for example if the
    positives are easier than that many negatives. Memory needs no limit: anchors are processed from the hardest on
    until the batch is full, and NMS holds a fixed number of overlaps at a time (measured in docs/results.md, Memory).
    A limit bounds the time on a CPU, since otherwise all anchors of an image may have to be processed.

    Returns the sum and the number of anchors to divide it by. Waits for the device.
    """

    batch_size: int = 128
    nms: float | None = 0.5
    ratio: float | None = None
    prior: float = 0.01
    candidates: int | None = None
    key: str = "class_logits"
    keep_positives: bool = False
    own_number: ClassVar[bool] = True

    def __call__(self, predictions: Predictions, matched: Matched) -> tuple[Tensor, Tensor]:
        """The sum over the chosen anchors of the batch, and their number (float, 0-dim)."""
        losses = BalancedCrossEntropy(alpha=None, key=self.key).anchor_losses(predictions, matched)
        chosen = self.choose(losses.detach(), matched)
        return torch.where(chosen, losses, 0.0).sum(), chosen.sum().to(losses.dtype)

    def choose(self, losses: Tensor, matched: Matched) -> Tensor:
        """Losses of the anchors [B, A] -> [B, A] bool: which anchors count."""
        counted, positive = matched.counted, matched.positive
        if self.ratio is None:
            batch = torch.full_like(positive.sum(1), self.batch_size)
            return self._survivors(
                losses, counted, matched.anchors, lambda alive, _: _first(alive, batch), self.batch_size
            )
        if self.keep_positives:
            share = int(self.batch_size * self.ratio / (1 + self.ratio))
            quota = (self.ratio * positive.sum(1)).floor().clamp(max=share)  # whole anchors only
            negatives = counted & ~positive
            return positive | self._survivors(
                losses, negatives, matched.anchors, lambda alive, _: _first(alive, quota), share
            )
        return self._survivors(
            losses, counted, matched.anchors, lambda alive, order: self._one_to_ratio(alive, order, counted & positive)
        )

    def _one_to_ratio(self, alive: Tensor, order: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        """The hardest positives among the survivors, and `ratio` times as many negatives."""
        assert self.ratio is not None
        shown = positive.gather(1, order)
        share = max(1, int(self.batch_size / (1 + self.ratio)))
        positives, enough = _first(alive & shown, torch.full_like(order.sum(1), share))
        count = positives.sum(1)
        quota = torch.minimum((self.ratio * count).floor(), self.batch_size - count)
        negatives, full = _first(alive & ~shown, quota)
        return positives | negatives, full & (enough | (shown.sum(1) == positive.sum(1)))

    def _survivors(
        self, losses: Tensor, eligible: Tensor, anchors: Tensor, take: Take, enough: int | None = None
    ) -> Tensor:
        """The anchors [B, A] that `take` chooses among the survivors of NMS by loss. `enough`: stop after this many."""
        most = losses.shape[1] if self.candidates is None else min(self.candidates, losses.shape[1])
        ranked = losses.masked_fill(~eligible, -torch.inf)
        number = min(_FIRST, most)
        while True:
            order = ranked.topk(number, dim=1).indices  # [B, number], hardest first
            alive = eligible.gather(1, order)
            ended = alive.sum(1) == eligible.sum(1)
            if self.nms is not None:
                boxes = anchors[order] if anchors.ndim == 2 else anchors.gather(1, order[..., None].expand(-1, -1, 4))
                alive = nms_sorted(boxes, alive, self.nms, enough=enough)
            # Whether an anchor survives depends only on harder ones, so choices among the hardest are final.
            taken, full = take(alive, order)
            if number == most or bool((full | ended).all()):
                return torch.zeros_like(eligible).scatter_(1, order, taken)
            number = min(2 * number, most)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1 or (self.candidates is not None and self.candidates < 1):
            raise UserError(
                "OHEMLoss: batch_size and candidates are numbers of anchors per image and must be at least 1 "
                f"(candidates None: all), got {self.batch_size} and {self.candidates}"
            )
        if self.keep_positives and self.ratio is None:
            raise UserError("OHEMLoss: keep_positives needs a ratio, got None: give one, such as ratio=3")
        if self.nms is not None and not 0 <= self.nms <= 1:
            raise UserError(f"OHEMLoss: nms must be an IoU from 0 to 1, or None for no NMS, got {self.nms}")
        if self.ratio is not None and not self.ratio >= 0:
            raise UserError(
                f"OHEMLoss: ratio must be the number of negatives per positive, 0 or more, or None, got {self.ratio}"
            )


def _first(alive: Tensor, quota: Tensor) -> tuple[Tensor, Tensor]:
    """The first `quota` [B] of the survivors `alive` [B, N] -> a mask of them, and which images have that many."""
    rank = alive.cumsum(1)
    return alive & (rank <= quota[:, None]), alive.sum(1) >= quota
