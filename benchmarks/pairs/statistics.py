"""Paired differences, their t-interval, and the verdict on a claim. The rules were fixed before the first run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pairs.experiment import Claim

# Student's t at 0.975 for 1, 2, ... degrees of freedom.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
        2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)  # fmt: skip

Verdict = Literal["shown", "not shown", "opposite", "helps", "hurts"]


@dataclass(frozen=True)
class Interval:
    """Mean of paired differences, its standard error, and the two-sided 95% interval of the mean."""

    mean: float
    error: float
    low: float
    high: float


def interval(differences: Sequence[float]) -> Interval:
    """The t-interval of the mean of at least two differences, with n - 1 degrees of freedom."""
    count = len(differences)
    if not 2 <= count <= len(T975) + 1:
        raise ValueError(f"an interval needs 2 to {len(T975) + 1} pairs, got {count}")
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    half = T975[count - 2] * error
    return Interval(mean, error, mean - half, mean + half)


def verdict(found: Interval, claim: Claim) -> Verdict:
    """What the interval (in AP points) says about a claim.

    "higher", "lower": shown if it excludes 0 in the claim's direction, opposite if it excludes 0 in the other one.
    "same": shown if it lies inside +-margin, opposite if it lies completely outside.
    "none": helps if it lies above 0, hurts if it lies below 0.
    In all other cases: not shown.
    """
    if claim.direction == "none":
        return "helps" if found.low > 0 else "hurts" if found.high < 0 else "not shown"
    if claim.direction == "same":
        if -claim.margin < found.low and found.high < claim.margin:
            return "shown"
        return "opposite" if found.low > claim.margin or found.high < -claim.margin else "not shown"
    low, high = (found.low, found.high) if claim.direction == "higher" else (-found.high, -found.low)
    return "shown" if low > 0 else "opposite" if high < 0 else "not shown"
