"""Correlation coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from singleshot.data.dataset import Floats

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Correlation:
    """How strongly two quantities are related; NaN if one of them is constant, or with fewer than two pairs."""

    count: int  # pairs
    pearson: float  # of the values, in [-1, 1]
    spearman: float  # of the ranks, in [-1, 1]


def correlation(first: Numbers, second: Numbers) -> Correlation:
    """Both coefficients of pairs [N], [N]."""
    return Correlation(len(first), pearson(first, second), spearman(first, second))


def pearson(first: Numbers, second: Numbers) -> float:
    """Pearson's coefficient of pairs [N], [N], in double precision."""
    if len(first) < 2:
        return float("nan")
    # Tested before any rounding: the mean of equal numbers may differ from that number.
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    x, y = (np.asarray(values, np.float64) for values in (first, second))
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def spearman(first: Numbers, second: Numbers) -> float:
    """Spearman's coefficient of pairs [N], [N]: Pearson's of the ranks. Equal values share their mean rank."""
    return pearson(average_ranks(first), average_ranks(second))


def average_ranks(values: Numbers) -> Floats:
    """The rank of each value [N] in ascending order, from 1. Equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
