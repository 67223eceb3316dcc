"""The result of an analysis of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from singleshot.analysis.loss.section import HARDEST, loss_section
from singleshot.analysis.section import Section
from singleshot.data.dataset import Floats


@dataclass(frozen=True)
class LossHistogram:
    """The losses of one kind of anchors, in bins from the lowest loss to the highest."""

    counts: NDArray[np.int64]  # [gammas, bins] number of anchors
    sums: Floats  # [gammas, bins] sum of their losses

    def __len__(self) -> int:
        return int(self.counts[0].sum())

    def curve(self, row: int) -> tuple[Floats, Floats]:
        """The cumulative distribution for one gamma: (fraction of the anchors, easiest first; share of the loss)."""
        filled = self.counts[row] > 0
        fraction = np.concatenate([[0], self.counts[row][filled].cumsum()]) / max(1, len(self))
        total = self.sums[row].sum()
        if total <= 0:
            return fraction, np.full(len(fraction), np.nan)
        return fraction, np.concatenate([[0.0], self.sums[row][filled].cumsum() / total])

    def share(self, row: int, hardest: float) -> float:
        """The share of the loss that the hardest fraction of the anchors carries; NaN without anchors or loss."""
        fraction, cumulative = self.curve(row)
        if len(fraction) < 2:
            return math.nan
        return 1.0 - float(np.interp(1.0 - hardest, fraction, cumulative))


@dataclass(frozen=True)
class LossDistribution:
    """The loss of every anchor of a dataset, for several gamma: Figure 4 of the focal loss paper."""

    gammas: tuple[float, ...]
    link: str  # "sigmoid" or "softmax"
    images: int
    positives: LossHistogram
    negatives: LossHistogram

    def to_json(self) -> dict[str, Any]:
        """Plain data: for each kind and gamma the shares of the loss that the hardest fractions carry."""

        def kind(histogram: LossHistogram) -> dict[str, Any]:
            shares = {
                f"{gamma:g}": {f"{hardest:g}": histogram.share(row, hardest) for hardest in HARDEST}
                for row, gamma in enumerate(self.gammas)
            }
            return {"anchors": len(histogram), "share_of_hardest": shares}

        return {
            "link": self.link,
            "images": self.images,
            "positives": kind(self.positives),
            "negatives": kind(self.negatives),
        }

    def section(self) -> Section:
        """The table and the figure."""
        return loss_section(self)
