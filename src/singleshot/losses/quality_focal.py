"""The quality focal loss (Li et al., 2020, Generalized Focal Loss, arXiv 2006.04388)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.focal import focal_curve
from singleshot.losses.iou_target import IoUTargetLoss, soft_cross_entropy


@dataclass(frozen=True)
class QualityFocalLoss(IoUTargetLoss):
    """-|y - p|^beta ((1 - y) log(1 - p) + y log(p)) of one sigmoid p per class (GFL paper, section 3, QFL).

    For the class of a positive anchor, y is the IoU of its predicted box with its object. All other y are 0. So the
    score of a class also says how well the box fits. The paper's `beta` is 2; 0 is cross-entropy with the IoU as a soft
    target. The sum is divided by the number of positives, as in the paper.
    """

    beta: float = 2.0
    prior: float = 0.01
    key: str = "class_logits"
    deltas: str = "box_deltas"

    def background(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """|p|^beta * -log(1 - p) of each logit x, and its derivative with respect to x; both new."""
        return focal_curve(x, self.beta)  # with y = 0 the formula is the focal loss of a negative

    def positive(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The formula at targets y above 0, for each logit x, and its derivative with respect to x."""
        cross_entropy, distance = soft_cross_entropy(x, target)
        size = distance.abs().clamp(min=torch.finfo(x.dtype).tiny)  # 0 to a negative power would be infinite
        spread = x.sigmoid() * (-x).sigmoid()  # dp/dx
        slope = size.pow(self.beta) * distance
        slope = slope + self.beta * size.pow(self.beta - 1) * distance.sign() * spread * cross_entropy
        return size.pow(self.beta) * cross_entropy, slope

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta >= 0:
            raise UserError(
                f"QualityFocalLoss: beta must be at least 0 (0 is cross-entropy, the paper uses 2), got {self.beta}"
            )
