"""The data that flows between the parts.

Shape letters, one legend for the whole project: B images, G ground-truth boxes (padded), A anchors, K classes,
D detections (padded), L levels, C channels, H W height and width.

Boxes are xyxy, float32, absolute pixels of the network's input unless said otherwise, without "+1".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.ops.boxes import aligned_iou

Predictions = dict[str, Tensor]
"""Raw outputs of a network: name -> float32 [B, A, n], A the same for all names."""


@dataclass(frozen=True)
class ImageBatch:
    """Images of any size, combined into one tensor for the network.

    If images keep their aspect ratio, each lies at the top left and is padded with zeros.
    """

    pixels: Tensor  # [B, 3, H, W] float32, normalised
    sizes: Tensor  # [B, 2] float32 (height, width) of the original images
    scales: Tensor  # [B, 2] float32 (x, y): pixels of the network's input per original pixel

    @property
    def limits(self) -> Tensor:
        """(height, width) of each image within the input [B, 2] float32; the rest is padding."""
        return self.sizes * self.scales.flip(1)


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch, padded to a power of two that fits the image with the most objects."""

    boxes: Tensor  # [B, G, 4] xyxy pixels of the network's input
    labels: Tensor  # [B, G] int64 in [0, K), -1 on padding rows
    crowd: Tensor  # [B, G] bool: regions to ignore instead of objects to find; False on padding rows

    @classmethod
    def from_list(cls, targets: Sequence[dict[str, Tensor]]) -> Targets:
        """Pad a list of {"boxes" [N, 4], "labels" [N], optional "iscrowd" [N]} to one size.

        G is a power of two (or 0 if no image has a box), so that a compiler sees only a few different shapes.
        """
        counts = [len(target["labels"]) for target in targets]
        most = max(counts, default=0)
        padded = 1 << (most - 1).bit_length() if most else 0
        device = targets[0]["boxes"].device if targets else torch.device("cpu")
        boxes = torch.zeros(len(counts), padded, 4, device=device)
        labels = torch.full((len(counts), padded), -1, dtype=torch.int64, device=device)
        crowd = torch.zeros(len(counts), padded, dtype=torch.bool, device=device)
        for i, (count, target) in enumerate(zip(counts, targets, strict=True)):
            boxes[i, :count] = target["boxes"].reshape(-1, 4).to(boxes)
            labels[i, :count] = target["labels"].to(labels)
            if "iscrowd" in target:
                crowd[i, :count] = target["iscrowd"].to(crowd)
        return cls(boxes, labels, crowd)


@dataclass(frozen=True)
class Anchors:
    """Boxes that predictions are relative to. Levels are in order; within a level the order is row, column, box."""

    boxes: Tensor  # [A, 4], or [B, A, 4] when each image has its own (refined)
    counts: tuple[int, ...]  # anchors of each level; their sum is A
    usable: Tensor | None = None  # [A] bool: False where an anchor takes no part in training; None: all take part


@dataclass(frozen=True)
class Matched:
    """What every anchor should predict."""

    anchors: Tensor  # [A, 4] or [B, A, 4]
    boxes: Tensor  # [B, A, 4] the matched box; the anchor itself if it has no match
    labels: Tensor  # [B, A] int64, 0 if the anchor has no match
    positive: Tensor  # [B, A] bool
    counted: Tensor  # [B, A] bool: False where the anchor is ignored
    coder: DeltaCoder | None = None  # encodes boxes relative to the anchors; `Criterion.match` sets it
    _ious: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def encoded(self) -> Tensor:
        """What the box output of each anchor should be [B, A, 4]: the matched box relative to the anchor."""
        return self._its_coder().encode(self.boxes, self.anchors)

    def decoded(self, deltas: Tensor) -> Tensor:
        """Decode a box output [B, A, 4] -> boxes [B, A, 4] float32; the anchor itself where it is not positive.

        The mask is applied before the arithmetic, because a NaN that is masked later would still be in the gradient.
        """
        return self._its_coder().decode(torch.where(self.positive[..., None], deltas, 0.0).float(), self.anchors)

    def iou(self, deltas: Tensor) -> Tensor:
        """The IoU of each positive's predicted box with its object [B, A] float32, 0 for all other anchors.

        `deltas` [B, A, 4] is the box output. The result is a constant: no gradient flows through it. It is computed
        when the first loss needs it, and kept for the others.
        """
        if id(deltas) not in self._ious:
            overlap = aligned_iou(self.decoded(deltas.detach()), self.boxes)
            self._ious[id(deltas)] = (
                deltas,
                torch.where(self.positive, overlap, 0.0),
            )  # the tensor is kept alive, so that no other gets its id
        return self._ious[id(deltas)][1]

    def _its_coder(self) -> DeltaCoder:
        if self.coder is None:
            raise ValueError("this Matched has no coder: get it from Criterion.match, which sets one")
        return self.coder


@dataclass(frozen=True)
class Detections:
    """Detections of a batch, best first, padded."""

    boxes: Tensor  # [B, D, 4]
    scores: Tensor  # [B, D], 0 on padding rows
    labels: Tensor  # [B, D] int64

    def to_list(self) -> list[dict[str, Tensor]]:
        """One dict of tensors without padding per image, as torchvision's detectors return."""
        found = self.scores > 0
        counts = found.sum(1).tolist()  # only this line and the next wait for the device
        images, places = found.nonzero(as_tuple=True)
        parts = (torch.split(part[images, places], counts) for part in (self.boxes, self.scores, self.labels))
        return [
            {"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in zip(*parts, strict=True)
        ]


def plain_name(name: str) -> str:
    """A class name in lower case, without spaces, hyphens and underscores, to compare names without regard to these."""
    return re.sub(r"[\s_-]+", "", name).casefold()
