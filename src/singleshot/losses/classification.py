"""Losses for the class of an anchor.

A classification loss owns its link: the number of logits, how they become probabilities, and the initial bias of the
layer that predicts them. Called with predictions and matches, it returns a sum. The criterion divides this sum by the
number of positives, or by the number that the loss returns with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.fused import anchor_losses
from singleshot.structures import Matched, Predictions


class ClassificationLoss(Protocol):
    """What every classification loss offers."""

    @property
    def initial_bias(self) -> float:
        """Bias of the layer that predicts the logits, at the start of training."""

    def num_logits(self, num_classes: int) -> int:
        """Logits per anchor."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, A, n] -> probability of each class [B, A, K]."""

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor | tuple[Tensor, Tensor]:
        """The sum of the loss over the batch, 0-dim; or (sum, count), both 0-dim, if the loss brings its own divisor.

        Anchors with `matched.counted` False contribute nothing, not even a gradient.
        """


@dataclass(frozen=True)
class SoftmaxLoss:
    """Cross-entropy over the classes and a background, with hard negative mining (SSD paper, equation 3, section 2.2).

    The last logit is the background. In each image the negatives are ranked by their loss as background. At most
    `ratio` times the number of the image's positives are taken, so an image without positives has no negatives either
    (authors' MineHardExamples).
    """

    ratio: float = 3.0
    key: str = "class_logits"
    initial_bias: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not self.ratio >= 0:
            raise UserError(f"SoftmaxLoss: ratio must be 0 or more, got {self.ratio}")

    def num_logits(self, num_classes: int) -> int:
        """One for each class, and one more (the last) for the background."""
        return num_classes + 1

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, A, K + 1] -> softmax of all, without the background's probability [B, A, K]."""
        return logits.softmax(-1)[..., :-1]

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives and the chosen negatives of all images."""
        logits = predictions[self.key]  # [B, A, K + 1]
        background = logits.shape[-1] - 1
        label = torch.where(matched.positive, matched.labels, background)
        loss = anchor_losses(_softmax_cross_entropy, logits, label, matched.positive)
        hard = hardest(loss, matched.counted & ~matched.positive, self.ratio * matched.positive.sum(1))
        # torch.where, not a product: a masked infinity must not become NaN.
        return torch.where(matched.positive | hard, loss, 0.0).sum()


def _softmax_cross_entropy(logits: Tensor, labels: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K + 1] and labels [N] -> -log p of the label [N] and its gradient p - 1 at the label, p elsewhere."""
    column = labels[:, None]
    total = logits.logsumexp(-1, keepdim=True)
    slope = (logits - total).exp_()
    slope.scatter_add_(1, column, slope.new_full((), -1.0).expand_as(column))
    return (total - logits.gather(1, column))[:, 0], slope


def hardest(loss: Tensor, eligible: Tensor, number: Tensor) -> Tensor:
    """The `number` [B] eligible anchors of each image with the highest loss [B, A], or all if fewer -> [B, A] bool."""
    ranked = loss.detach().masked_fill(~eligible, -torch.inf)
    order = ranked.argsort(1, descending=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return eligible & (rank + 1 <= number[:, None])  # `number` is rounded down
