"""Where the box is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.ops.boxes import aligned_giou
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class SmoothL1:
    """Smooth L1 between predicted and encoded deltas, summed over coordinates and positives (SSD paper, equation 2).

    Quadratic below `beta`, linear above; beta 1 for SSD (authors' multibox loss), 0.11 for RetinaNet (Detectron).
    """

    coder: DeltaCoder
    beta: float = 1.0
    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        target = self.coder.encode(matched.boxes, matched.anchors)
        loss = F.smooth_l1_loss(predictions[self.key], target, beta=self.beta, reduction="none")
        return torch.where(matched.positive[..., None], loss, 0.0).sum()


@dataclass(frozen=True)
class L1:
    """Absolute difference of predicted and encoded deltas, summed over coordinates and positives.

    The limit of `SmoothL1` for a beta of 0 (the box loss of Detectron2's and torchvision's RetinaNet).
    """

    coder: DeltaCoder
    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        target = self.coder.encode(matched.boxes, matched.anchors)
        return torch.where(matched.positive[..., None], (predictions[self.key] - target).abs(), 0.0).sum()


@dataclass(frozen=True)
class GIoULoss:
    """1 - generalised IoU of decoded and matched boxes, summed over positives (Rezatofighi et al., 2019).

    In [0, 2] for each positive: 0 where the boxes are equal, near 2 where they are far apart (the box loss of
    torchvision's `retinanet_resnet50_fpn_v2`).
    """

    coder: DeltaCoder
    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        boxes = decoded_positives(self.coder, predictions[self.key], matched)
        return torch.where(matched.positive, 1 - aligned_giou(boxes, matched.boxes), 0.0).sum()


def decoded_positives(coder: DeltaCoder, deltas: Tensor, matched: Matched) -> Tensor:
    """Deltas [B, A, 4] -> boxes [B, A, 4] float32; the anchor itself where an anchor is not positive.

    Masked before the arithmetic: a NaN that is masked afterwards is still one in the gradient.
    """
    return coder.decode(torch.where(matched.positive[..., None], deltas, 0.0).float(), matched.anchors)
