"""One matching, any number of loss terms, one normaliser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from singleshot.matchers import IoUMatcher
from singleshot.structures import Anchors, Matched, Predictions, Targets

LossTerm = Callable[[Predictions, Matched], Tensor]


@dataclass(frozen=True)
class Criterion:
    """Matches once, sums each term, and divides by the number of positives.

    The positives are summed over the images of all ranks, and the loss is multiplied by the number of ranks: averaging
    of gradients over N ranks then equals one rank with N times the batch. Without any positive every term is exactly 0,
    with finite gradients (authors' multibox loss gives 0 as well).
    """

    matcher: IoUMatcher
    terms: Mapping[str, LossTerm]

    def __call__(
        self, predictions: Predictions, anchors: Anchors, targets: Targets, keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses by name. `keep` [B, A] bool: negatives outside of it are not counted (RefineDet's filter)."""
        matched = self.matcher(anchors, targets)
        if keep is not None:
            matched = replace(matched, counted=matched.positive | (matched.counted & keep))
        num_positive, ranks = sum_over_ranks(matched.positive.sum())
        scale = torch.where(num_positive > 0, ranks / num_positive.clamp(min=1), 0.0)
        return {name: term(predictions, matched) * scale for name, term in self.terms.items()}


def sum_over_ranks(count: Tensor) -> tuple[Tensor, int]:
    """The sum of a count over all processes, and how many there are; no wait on the host."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count, 1
    total = count.detach().clone()
    dist.all_reduce(total)
    return total, dist.get_world_size()
