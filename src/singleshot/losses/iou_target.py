"""Losses on one sigmoid per class. The target says how well the anchor's box fits: class and quality in one number."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.losses.fused import anchor_losses
from singleshot.losses.sigmoid import SigmoidLink
from singleshot.structures import Matched, Predictions


class IoUTargetLoss(SigmoidLink, ABC):
    """A loss with a target from 0 to 1 for each logit, summed over the classes of all anchors that count.

    For the class of a positive anchor the target is the IoU of its predicted box with its object (`Matched.iou`), as a
    constant. All other targets are 0.
    """

    key: str
    deltas: str

    @abstractmethod
    def background(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each logit x with a target of 0, and its derivative with respect to x; both new."""

    @abstractmethod
    def positive(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each logit x with a target above 0, and its derivative with respect to x."""

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over all classes of all anchors that count."""
        # torch.where, not a product: a masked infinity must not become NaN.
        return torch.where(matched.counted, self.anchor_losses(predictions, matched), 0.0).sum()

    def anchor_losses(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The loss of every anchor, summed over its classes: [B, A], including anchors that do not count."""
        target = matched.iou(predictions[self.deltas])
        return anchor_losses(self._formula, predictions[self.key], matched.labels, target)

    def _formula(self, logits: Tensor, labels: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        column, target = labels[:, None], target[:, None]
        found = target != 0
        both = self.background(logits)  # first as if all anchors were background: nearly all are
        for values, own in zip(both, self.positive(logits.gather(1, column), target), strict=True):
            values.scatter_(1, column, torch.where(found, own, values.gather(1, column)))
        loss, slope = both
        return loss.sum(1), slope


def soft_cross_entropy(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """-y log(p) - (1 - y) log(1 - p) of each logit, p = sigmoid(x), with targets y, and its derivative p - y."""
    loss = target * F.softplus(-x) + (1 - target) * F.softplus(x)
    # Both forms are p - y. Near p = 1 the second form would lose precision.
    return loss, torch.where(x > 0, (1 - target) - (-x).sigmoid(), x.sigmoid() - target)
