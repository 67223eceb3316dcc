"""How the predictions of an anchor become a score for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from torch import Tensor

from singleshot.losses.classification import ClassificationLoss
from singleshot.losses.sigmoid import SigmoidLink
from singleshot.outputs.output import Factor
from singleshot.structures import Predictions


class Scored(Protocol):
    """What the score needs to know about an extra output."""

    @property
    def key(self) -> str:
        """The name of its logits among the predictions."""

    @property
    def factor(self) -> Factor | None:
        """How it counts in the score; None if it does not count."""


@dataclass(frozen=True)
class ClassScores:
    """The score from the class probability p and the extra outputs of the anchor: predictions -> [B, A, K].

    Each output f with a factor counts by its alpha: p^alpha * f^(1 - alpha) (IoU-aware paper, equation 5), or p * f
    if alpha is None. With several outputs, the power of p is the product of their alphas. So alpha 1 leaves out the
    output, with the same bits as without it. Alpha 0 leaves out the class: all classes then have the same score.
    """

    classification: ClassificationLoss
    outputs: Sequence[Scored] = ()
    key: str = "class_logits"

    def __call__(self, predictions: Predictions) -> Tensor:
        """Predictions of B images -> [B, A, K]."""
        probability = self.classification.probabilities(predictions[self.key])
        alphas = {output.key: output.factor.alpha for output in self.outputs if output.factor is not None}
        own = math.prod(alpha for alpha in alphas.values() if alpha is not None)  # 1 if there are none
        # A part with power 0 is left out instead of computed, so its values do not matter. All other powers are in
        # (0, 1]: 0 stays 0, 1 stays 1, and nothing overflows.
        parts = [] if own == 0 else [_power(probability, own)]
        for key, alpha in alphas.items():
            if alpha != 1:
                parts.append(_power(predictions[key].sigmoid(), 1 if alpha is None else 1 - alpha))
        score = parts[0]
        for part in parts[1:]:
            score = score * part
        return score.expand_as(probability)

    def least_logit(self, threshold: float) -> float | None:
        """A number that the logit of a class exceeds wherever its score exceeds the threshold. None: it is not known.

        So the anchors that count can be found without computing any score. No factor is above 1, so of one sigmoid per
        class p^own must exceed the threshold.
        """
        if getattr(type(self.classification), "probabilities", None) is not SigmoidLink.probabilities:
            return None
        own = math.prod(
            output.factor.alpha for output in self.outputs if output.factor and output.factor.alpha is not None
        )
        if own == 0 or not 0 < threshold < 1:
            return None
        least = min(threshold, 0.99) ** (1 / own)
        # A little less, because scores are rounded.
        return math.log(least / (1 - least)) - 1e-2 if least > 1e-30 else None

    @property
    def alphas(self) -> dict[str, float | None]:
        """The alpha of each factor, by its name in `vary`."""
        return {output.factor.name: output.factor.alpha for output in self.outputs if output.factor is not None}

    def with_alpha(self, name: str, alpha: float | None) -> ClassScores:
        """The same scores with another alpha for the factor of this name."""
        return replace(self, outputs=tuple(_with_alpha(output, name, alpha) for output in self.outputs))


def _with_alpha(output: Scored, name: str, alpha: float | None) -> Scored:
    if output.factor is None or output.factor.name != name:
        return output
    return cast(Scored, replace(cast(Any, output), factor=replace(output.factor, alpha=alpha)))


def _power(values: Tensor, power: float) -> Tensor:
    return values if power == 1 else values.pow(power)
