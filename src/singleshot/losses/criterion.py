"""One matching, any number of loss terms, one normaliser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.matchers import IoUMatcher
from singleshot.structures import Anchors, Matched, Predictions, Targets

LossTerm = Callable[[Predictions, Matched], "Tensor | tuple[Tensor, Tensor]"]
"""Returns a sum over the batch, which the criterion divides by the positives; or (sum, number to divide it by).

A term of the second kind must have a class attribute `own_number = True`. Accumulation needs that number before the
first backward pass. The attribute tells it that the predictions are needed to compute the number.
"""


@dataclass(frozen=True)
class Criterion:
    """Matches once, sums each term, and divides all by one number: the positives.

    The positives are summed over the images of all ranks, and the loss is multiplied by the number of ranks. Averaging
    gradients over N ranks then equals one rank with N times the batch. Without any positive every term is exactly 0,
    with finite gradients (authors' multibox loss gives 0 as well).

    A term gets the predictions and a `Matched`. With `coder`, `Matched` also encodes boxes relative to their anchors,
    decodes them, and says how well each predicted box fits (`Matched.iou`).

    `weights` multiply the losses by name: {"box": alpha} is SSD's equation 1. The default weight is 1.

    With `at_least_one` each image counts max(its positives, 1). An image without objects then teaches the background,
    and the number is never 0 (RetinaNet; mmdetection).
    """

    matcher: IoUMatcher
    terms: Mapping[str, LossTerm]
    coder: DeltaCoder  # encodes boxes relative to the anchors; the same as the post-processing's
    at_least_one: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)

    def match(self, anchors: Anchors, targets: Targets, keep: Tensor | None = None) -> Matched:
        """What each anchor should predict.

        `keep` [B, A] bool: negatives that are not kept do not count; positives always count (RefineDet's filter).
        """
        matched = replace(self.matcher(anchors, targets), coder=self.coder)
        if keep is not None:
            matched = replace(matched, counted=matched.positive | (matched.counted & keep))
        return matched

    def __call__(
        self,
        predictions: Predictions,
        anchors: Anchors,
        targets: Targets,
        keep: Tensor | None = None,
        counts: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name; `keep` as in `match`.

        `counts`: what to divide each term by, in place of this batch's own numbers. Given the sum of `counts` over
        several batches, the losses of these batches add up to the loss of one batch with all their images.
        """
        matched = self.match(anchors, targets, keep)
        shared = self._positives(matched)
        losses = {}
        for name, term in self.terms.items():
            value = term(predictions, matched)
            total, count = value if isinstance(value, tuple) else (value, shared)
            if counts is not None:
                if isinstance(value, tuple) and not _brings_number(term):
                    raise UserError(
                        f"the loss {name!r} returns its own divisor, but its class does not say so, and "
                        "optimizer.accumulate must know it: add `own_number = True` to the class"
                    )
                count = counts[name]
            losses[name] = total * _share(count) * self.weights.get(name, 1.0)
        return losses

    @property
    def reads_predictions(self) -> bool:
        """Whether `counts` needs the predictions, because a term brings its own number."""
        return any(_brings_number(term) for term in self.terms.values())

    @torch.no_grad()
    def counts(
        self, predictions: Predictions, anchors: Anchors, targets: Targets, keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The number that each term is divided by, by name, 0-dim, for the images of this process only.

        `predictions` may be empty if `reads_predictions` is False.
        """
        matched = self.match(anchors, targets, keep)
        shared = self._positives(matched)
        return {name: _number(term, predictions, matched, shared) for name, term in self.terms.items()}

    def _positives(self, matched: Matched) -> Tensor:
        """The number that divides all terms without a number of their own."""
        positives = matched.positive.sum(1)
        return positives.clamp(min=1).sum() if self.at_least_one else positives.sum()


def _brings_number(term: LossTerm) -> bool:
    return bool(getattr(term, "own_number", False))


def _number(term: LossTerm, predictions: Predictions, matched: Matched, shared: Tensor) -> Tensor:
    value = term(predictions, matched) if _brings_number(term) else shared
    return value[1] if isinstance(value, tuple) else shared


def _share(count: Tensor) -> Tensor:
    """The factor of a rank's sum, from this rank's count; 0 if the count over all ranks is 0."""
    everywhere, ranks = sum_over_ranks(count)
    return torch.where(everywhere > 0, ranks / everywhere.clamp(min=1), 0.0)


def sum_over_ranks(count: Tensor) -> tuple[Tensor, int]:
    """The sum of a count over all processes, and the number of processes; no host sync."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count, 1
    total = count.detach().clone()
    dist.all_reduce(total)
    return total, dist.get_world_size()
