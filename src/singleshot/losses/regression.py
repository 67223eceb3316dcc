"""Where the box is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.ops.boxes import aligned_giou
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class SmoothL1:
    """Smooth L1 between predicted and encoded deltas, summed over coordinates and positives (SSD paper, equation 2).

    Quadratic below `beta`, linear above; beta 1 for SSD (authors' multibox loss), 0.11 for RetinaNet (Detectron).
    """

    beta: float = 1.0
    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        loss = F.smooth_l1_loss(predictions[self.key], matched.encoded(), beta=self.beta, reduction="none")
        return torch.where(matched.positive[..., None], loss, 0.0).sum()


@dataclass(frozen=True)
class L1:
    """Absolute difference of predicted and encoded deltas, summed over coordinates and positives.

    The limit of `SmoothL1` for a beta of 0 (the box loss of Detectron2's and torchvision's RetinaNet).
    """

    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        distance = (predictions[self.key] - matched.encoded()).abs()
        return torch.where(matched.positive[..., None], distance, 0.0).sum()


@dataclass(frozen=True)
class GIoULoss:
    """1 - generalised IoU of decoded and matched boxes, summed over positives (Rezatofighi et al., 2019).

    In [0, 2] for each positive: 0 where the boxes are equal, near 2 where they are far apart (the box loss of
    torchvision's `retinanet_resnet50_fpn_v2`).
    """

    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        boxes = matched.decoded(predictions[self.key])
        return torch.where(matched.positive, 1 - aligned_giou(boxes, matched.boxes), 0.0).sum()
