"""Losses for the position and size of the box."""

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

    Quadratic below `beta`, linear above. SSD has beta 1 (authors' multibox loss), RetinaNet 0.11 (Detectron).
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

    It is the limit of `SmoothL1` for a beta of 0, and the box loss of RetinaNet in Detectron2 and torchvision.
    """

    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        distance = (predictions[self.key] - matched.encoded()).abs()
        return torch.where(matched.positive[..., None], distance, 0.0).sum()


@dataclass(frozen=True)
class GIoULoss:
    """1 - generalised IoU of decoded and matched boxes, summed over positives (Rezatofighi et al., 2019).

    In [0, 2] for each positive: 0 for equal boxes, near 2 for boxes that are far apart. It is the box loss of
    torchvision's `retinanet_resnet50_fpn_v2`.
    """

    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        boxes = matched.decoded(predictions[self.key])
        return torch.where(matched.positive, 1 - aligned_giou(boxes, matched.boxes), 0.0).sum()
