"""A classification loss as somebody would add one: the Brier score, the square of how much a probability is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from singleshot.losses.sigmoid import SigmoidLoss


@dataclass(frozen=True)
class ToyBrier(SigmoidLoss):
    """(1 - p_t)^2 of one sigmoid per class."""

    alpha: float | None = None
    prior: float = 0.1
    key: str = "class_logits"

    def curve(self, z: Tensor) -> tuple[Tensor, Tensor]:
        wrong = z.sigmoid()
        return wrong.square(), 2 * wrong.square() * (1 - wrong)
