"""Where the box is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class SmoothL1:
    """Smooth L1 between predicted and encoded deltas, summed over coordinates and positives (SSD paper, equation 2).

    Quadratic below `beta`, linear above; beta 1 for SSD (authors' multibox loss).
    """

    coder: DeltaCoder
    beta: float = 1.0
    key: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        target = self.coder.encode(matched.boxes, matched.anchors)
        loss = F.smooth_l1_loss(predictions[self.key], target, beta=self.beta, reduction="none")
        return torch.where(matched.positive[..., None], loss, 0.0).sum()
