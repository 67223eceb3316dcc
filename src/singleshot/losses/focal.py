"""The focal loss and its variant FL* (Lin et al., 2017, arXiv 1708.02002)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.sigmoid import SigmoidLoss


@dataclass(frozen=True)
class FocalLoss(SigmoidLoss):
    """Focal loss, -alpha_t (1 - p_t)^gamma log(p_t), of one sigmoid per class (RetinaNet paper, equation 5).

    `gamma` 0 is alpha-balanced cross-entropy. Table 1b has the best pairs (gamma, alpha): (0, 0.75), (0.5, 0.5),
    (2, 0.25). `alpha` None is equation 4.
    """

    alpha: float | None = 0.25
    gamma: float = 2.0
    prior: float = 0.01
    key: str = "class_logits"

    def curve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - p_t)^gamma * -log(p_t) of each element at z = -x_t, and its derivative with respect to z; both new."""
        return focal_curve(z, self.gamma)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma >= 0:
            raise UserError(
                f"FocalLoss: gamma must be at least 0 (0 is cross-entropy, the paper uses 2), got {self.gamma}"
            )


@dataclass(frozen=True)
class FocalStarLoss(SigmoidLoss):
    """FL*, -alpha_t log(p_t*) / gamma with p_t* = sigmoid(gamma x_t + beta) (RetinaNet paper, equations 7 and 8).

    `gamma` is the steepness and `beta` the shift. Table 3 has (2, 1) and (4, 0), with alpha 0.25. The probability of a
    class is the plain sigmoid of its logit, as for the focal loss. p_t* is used only in training.
    """

    gamma: float = 2.0
    beta: float = 1.0
    alpha: float | None = 0.25
    prior: float = 0.01
    key: str = "class_logits"

    def curve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """-log(p_t*) / gamma of each element at z = -x_t, and its derivative with respect to z; both new."""
        shifted = z.mul(self.gamma).sub_(self.beta)
        return F.softplus(shifted).div_(self.gamma), shifted.sigmoid()  # equation 11: dFL*/dx = y (p_t* - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0:
            raise UserError(f"FocalStarLoss: gamma must be above 0 (the paper uses 2 and 4), got {self.gamma}")


def focal_curve(z: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """(1 - p_t)^gamma * -log(p_t) of each element at z = -x_t, and its derivative with respect to z; both new."""
    wrong, cross_entropy = z.sigmoid(), F.softplus(z)  # 1 - p_t and -log(p_t)
    factor = wrong.pow(gamma)
    # Equation 10: dFL/dx = y (1 - p_t)^gamma (gamma p_t log(p_t) + p_t - 1)
    slope = torch.addcmul(wrong, 1 - wrong, cross_entropy, value=gamma).mul_(factor)
    return cross_entropy.mul_(factor), slope
