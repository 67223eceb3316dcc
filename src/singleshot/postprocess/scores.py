"""How an anchor's predictions become a score of each class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.classification import ClassificationLoss
from singleshot.structures import Predictions


@dataclass(frozen=True)
class ClassScores:
    """The probability of the class is the score: predictions -> [B, A, K]."""

    classification: ClassificationLoss
    key: str = "class_logits"

    def __call__(self, predictions: Predictions) -> Tensor:
        """Predictions of B images -> [B, A, K]."""
        return self.classification.probabilities(predictions[self.key])


@dataclass(frozen=True)
class IoUAwareScores:
    """Class and predicted IoU together: p^alpha * IoU^(1 - alpha), p the probability (IoU-aware paper, equation 5).

    `alpha` 1 is the probability alone (the same bits as `ClassScores`), 0 the IoU alone, the
    same for every class; None is the plain product p * IoU (the paper's "none", section 4.3).

    Raises `UserError` for an alpha outside of 0..1.
    """

    classification: ClassificationLoss
    alpha: float | None = 0.5  # authors' code, and the best of the paper's Table 3
    key: str = "class_logits"
    iou_key: str = "iou_logits"  # [B, A, 1]

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise UserError(
                f"iou_alpha must be a number from 0 (the predicted IoU alone) to 1 (the class alone), or None for the "
                f"plain product of both, got {self.alpha!r}"
            )

    def __call__(self, predictions: Predictions) -> Tensor:
        """Predictions of B images -> [B, A, K]."""
        probability = self.classification.probabilities(predictions[self.key])
        if self.alpha == 1:
            return probability
        iou = predictions[self.iou_key].sigmoid()
        if self.alpha is None:
            return probability * iou
        if self.alpha == 0:  # not p^0 * IoU: only the shape of p is needed
            return iou.expand_as(probability)
        # Both exponents are inside of (0, 1): 0 stays 0, 1 stays 1, and nothing overflows.
        return probability.pow(self.alpha) * iou.pow(1 - self.alpha)
