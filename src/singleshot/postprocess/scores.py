"""How an anchor's predictions become a score of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from torch import Tensor

from singleshot.losses.classification import ClassificationLoss
from singleshot.outputs.output import Factor
from singleshot.structures import Predictions


class Scored(Protocol):
    """What the score needs to know of an extra output."""

    @property
    def key(self) -> str:
        """The name of its logits among the predictions."""

    @property
    def factor(self) -> Factor | None:
        """How it counts; None if it does not."""


@dataclass(frozen=True)
class ClassScores:
    """The probability of the class, and what extra outputs say of the anchor: predictions -> [B, A, K].

    Each output f with a factor counts by its alpha: p^alpha * f^(1 - alpha) (IoU-aware paper, equation 5), or p * f
    where alpha is None. With several outputs p has the product of their alphas as its power. So alpha 1 leaves an
    output out, with the same bits as without it, and alpha 0 the class, so that all classes have one score.
    """

    classification: ClassificationLoss
    outputs: Sequence[Scored] = ()
    key: str = "class_logits"

    def __call__(self, predictions: Predictions) -> Tensor:
        """Predictions of B images -> [B, A, K]."""
        probability = self.classification.probabilities(predictions[self.key])
        alphas = {output.key: output.factor.alpha for output in self.outputs if output.factor is not None}
        own = math.prod(alpha for alpha in alphas.values() if alpha is not None)  # 1 where there is none
        # No power of 0 is taken, so that only the shape of what is left out matters. All other powers are inside of
        # (0, 1]: 0 stays 0, 1 stays 1, and nothing overflows.
        parts = [] if own == 0 else [_power(probability, own)]
        for key, alpha in alphas.items():
            if alpha != 1:
                parts.append(_power(predictions[key].sigmoid(), 1 if alpha is None else 1 - alpha))
        score = parts[0]
        for part in parts[1:]:
            score = score * part
        return score.expand_as(probability)

    @property
    def alphas(self) -> dict[str, float | None]:
        """The alpha of each factor by the name that `vary` knows it by."""
        return {output.factor.name: output.factor.alpha for output in self.outputs if output.factor is not None}

    def with_alpha(self, name: str, alpha: float | None) -> ClassScores:
        """The same scores with another alpha of the factor with this name."""
        return replace(self, outputs=tuple(_with_alpha(output, name, alpha) for output in self.outputs))


def _with_alpha(output: Scored, name: str, alpha: float | None) -> Scored:
    if output.factor is None or output.factor.name != name:
        return output
    return cast(Scored, replace(cast(Any, output), factor=replace(output.factor, alpha=alpha)))


def _power(values: Tensor, power: float) -> Tensor:
    return values if power == 1 else values.pow(power)
