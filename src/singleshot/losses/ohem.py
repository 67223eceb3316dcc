"""Online hard example mining, the focal loss's rival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.sigmoid import BalancedCrossEntropy, SigmoidLink
from singleshot.ops.nms import nms_sorted
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class OHEMLoss(SigmoidLink):
    """Cross-entropy of the hardest anchors of each image (RetinaNet paper, section 5.1 and Table 1d).

    The loss of an anchor is its sigmoid cross-entropy summed over the classes. In each image the `candidates` anchors
    of highest loss go through NMS by loss (`nms`: IoU of anchors above which the easier one is dropped; None: no NMS),
    and the first `batch_size` survivors count. The paper does not say whether its batch is that of an image or of all;
    here it is per image, so that what an image teaches does not depend on the images beside it.

    With `ratio` (the paper's "OHEM 1:3", after SSD) all positives count, whatever their loss and overlap, and of the
    surviving negatives the hardest: up to `ratio` for each positive of the image, and no more than their share of the
    batch, ratio / (1 + ratio) of `batch_size`. An image without positives then has no negatives either.

    Gives the sum and the number of anchors that it is to be divided by. NMS waits for the device, and nothing else.
    """

    batch_size: int = 128
    nms: float | None = 0.5
    ratio: float | None = None
    prior: float = 0.01
    candidates: int = 10_000
    key: str = "class_logits"
    own_number: ClassVar[bool] = True

    def __call__(self, predictions: Predictions, matched: Matched) -> tuple[Tensor, Tensor]:
        """The sum over the chosen anchors of the batch, and how many they are (float, 0-dim)."""
        losses = BalancedCrossEntropy(alpha=None, key=self.key).anchor_losses(predictions, matched)
        chosen = self.choose(losses.detach(), matched)
        return torch.where(chosen, losses, 0.0).sum(), chosen.sum().to(losses.dtype)

    def choose(self, losses: Tensor, matched: Matched) -> Tensor:
        """Losses of the anchors [B, A] -> [B, A] bool: those that count."""
        positive = matched.positive
        if self.ratio is None:
            return self._hardest(losses, matched.counted, matched.anchors, self.batch_size, None)
        most = int(self.batch_size * self.ratio / (1 + self.ratio))
        quota = self.ratio * positive.sum(1)
        return positive | self._hardest(losses, matched.counted & ~positive, matched.anchors, most, quota)

    def _hardest(self, losses: Tensor, eligible: Tensor, anchors: Tensor, most: int, quota: Tensor | None) -> Tensor:
        number = min(self.candidates, losses.shape[1])
        if self.nms is None:
            number = min(number, most)
        order = losses.masked_fill(~eligible, -torch.inf).topk(number, dim=1).indices  # [B, number], hardest first
        alive = eligible.gather(1, order)
        if self.nms is not None:
            boxes = anchors[order] if anchors.ndim == 2 else anchors.gather(1, order[..., None].expand(-1, -1, 4))
            alive = nms_sorted(boxes, alive, self.nms, enough=most)
        rank = alive.cumsum(1)
        taken = alive & (rank <= most)
        if quota is not None:
            taken &= rank <= quota[:, None]  # a fraction of an anchor is none
        return torch.zeros_like(eligible).scatter_(1, order, taken)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1 or self.candidates < 1:
            raise UserError(
                "OHEMLoss: batch_size and candidates are numbers of anchors per image, at least 1, "
                f"got {self.batch_size} and {self.candidates}"
            )
        if self.nms is not None and not 0 <= self.nms <= 1:
            raise UserError(f"OHEMLoss: nms is an IoU from 0 to 1, or None for no NMS, got {self.nms}")
        if self.ratio is not None and not self.ratio >= 0:
            raise UserError(f"OHEMLoss: ratio is a number of negatives for each positive, or None, got {self.ratio}")
