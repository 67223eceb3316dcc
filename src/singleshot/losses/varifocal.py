"""The varifocal loss (Zhang et al., 2021, VarifocalNet, arXiv 2008.13367)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.focal import focal_curve
from singleshot.losses.iou_target import IoUTargetLoss, soft_cross_entropy


@dataclass(frozen=True)
class VarifocalLoss(IoUTargetLoss):
    """-q (q log(p) + (1 - q) log(1 - p)) where q > 0, else -alpha p^gamma log(1 - p) (VFNet paper, equation 2).

    p is one sigmoid per class. For the class of a positive anchor, q is the IoU of its predicted box with its object.
    All other q are 0. Easy negatives count little, as in the focal loss. Positives are weighted by q, how well the box
    fits, so that training concentrates on the good ones. `alpha` 0.75 and `gamma` 2 are the paper's. The sum is divided
    by the number of positives.
    """

    alpha: float = 0.75
    gamma: float = 2.0
    prior: float = 0.01
    key: str = "class_logits"
    deltas: str = "box_deltas"

    def background(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-alpha p^gamma log(1 - p) of each logit x, and its derivative with respect to x; both new."""
        loss, slope = focal_curve(x, self.gamma)
        return loss.mul_(self.alpha), slope.mul_(self.alpha)

    def positive(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """-q (q log(p) + (1 - q) log(1 - p)) of each logit x, and its derivative with respect to x."""
        loss, slope = soft_cross_entropy(x, target)
        return target * loss, target * slope

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma >= 0:
            raise UserError(f"VarifocalLoss: gamma must be at least 0 (the paper uses 2), got {self.gamma}")
        if not self.alpha >= 0:
            raise UserError(
                f"VarifocalLoss: alpha, the weight of the background, must be at least 0 (the paper uses 0.75), "
                f"got {self.alpha}"
            )
