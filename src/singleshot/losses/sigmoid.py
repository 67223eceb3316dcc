"""Losses on one sigmoid per class: what they share, and the two plain ones.

An anchor has K logits x, one for each class. The target is y = 1 for the class of a positive anchor, else y = -1
(RetinaNet paper, section 4, Anchors). All these losses depend only on x_t = y x (equation 6). The code uses z = -x_t,
which says how wrong the logit is: p_t = sigmoid(-z), -log p_t = softplus(z).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.fused import anchor_losses
from singleshot.structures import Matched, Predictions


class SigmoidLink:
    """One logit per class; its sigmoid is the probability. It starts at `prior` everywhere (section 3.3)."""

    prior: float

    @property
    def initial_bias(self) -> float:
        """-log((1 - prior) / prior), section 4.1."""
        return -math.log((1 - self.prior) / self.prior)

    def num_logits(self, num_classes: int) -> int:
        """One for each class, none for the background."""
        return num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, A, K] -> their sigmoids [B, A, K], each independent of the others."""
        return logits.sigmoid()

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 < self.prior < 1:
            raise UserError(
                f"{name}: prior must be a probability above 0 and below 1 (the paper uses 0.01), got {self.prior}"
            )


class SigmoidLoss(SigmoidLink, ABC):
    """A loss with the same curve for all logits, weighted by alpha_t, summed over all anchors that count.

    `alpha` is the weight of the logits with y = 1; all others have 1 - `alpha` (section 3.1). None: no weights.
    """

    alpha: float | None
    key: str

    @abstractmethod
    def curve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each element at z = -x_t, without alpha_t, and its derivative with respect to z; both new."""

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over all classes of all anchors that count."""
        # torch.where, not a product: a masked infinity must not become NaN.
        return torch.where(matched.counted, self.anchor_losses(predictions, matched), 0.0).sum()

    def anchor_losses(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The loss of every anchor, summed over its classes: [B, A], including anchors that do not count."""
        return anchor_losses(self._formula, predictions[self.key], matched.labels, matched.positive)

    def _formula(self, logits: Tensor, labels: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        own, other = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        column = labels[:, None]
        loss, slope = self.curve(logits)  # first as if all were negatives: nearly all are
        true_loss, true_slope = self.curve(-logits.gather(1, column))
        chosen = positive[:, None]
        # The element of a positive anchor's class is replaced, not corrected by adding a difference: a large difference
        # would lose the small losses of the other classes.
        loss.scatter_(1, column, loss.gather(1, column).masked_fill_(chosen, 0.0))
        slope = slope.mul_(other)
        slope.scatter_(1, column, torch.where(chosen, -own * true_slope, slope.gather(1, column)))
        return loss.sum(1).mul_(other) + torch.where(positive, own * true_loss[:, 0], 0.0), slope

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            name = type(self).__name__
            raise UserError(f"{name}: alpha must be a weight from 0 to 1, or None for no weights, got {self.alpha}")


@dataclass(frozen=True)
class BalancedCrossEntropy(SigmoidLoss):
    """Alpha-balanced cross-entropy, -alpha_t log(p_t) (RetinaNet paper, equation 3; Table 1a).

    The best `alpha` was 0.75. 0.5 is half of the paper's plain cross-entropy; None is exactly the plain one.
    """

    alpha: float | None = 0.75
    prior: float = 0.01
    key: str = "class_logits"

    def curve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """-log(p_t) of each element at z = -x_t, and its derivative with respect to z; both new."""
        return F.softplus(z), z.sigmoid()  # equation 9: dCE/dx = y (p_t - 1)


@dataclass(frozen=True)
class HingeLoss(SigmoidLoss):
    """Hinge on the probability, max(0, margin - p_t) (RetinaNet paper, section 5.1, last paragraph).

    The paper says that the loss is "on p_t" and 0 "above a certain value of p_t". It was unstable and gave no
    meaningful results. Three things are open in the paper. The value is `margin` here. The slope is 1 in p_t here. The
    loss is not balanced here, unless `alpha` is given. The derivative with respect to x is -y p_t (1 - p_t) below the
    margin and 0 above. So an example that is very wrong pulls no more than one that is right: at a prior of 0.01
    positives start with a slope of 0.01.
    """

    margin: float = 0.5
    alpha: float | None = None
    prior: float = 0.01
    key: str = "class_logits"

    def curve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """max(0, margin - p_t) of each element at z = -x_t, and its derivative with respect to z; both new."""
        right = (-z).sigmoid()  # p_t
        slope = right.mul(z.sigmoid())  # not p_t (1 - p_t): 1 - p_t would be 0 too early
        return (self.margin - right).clamp_(min=0), slope.masked_fill_(right >= self.margin, 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.margin <= 1:
            raise UserError(
                f"HingeLoss: margin must be a probability above 0 and at most 1 (examples with p_t above it cost "
                f"nothing), got {self.margin}"
            )
