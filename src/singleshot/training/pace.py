"""How long the steps of this process take: for the time left, and for a run that is bounded in time."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


def now() -> float:
    """Seconds on a clock that only goes forward: the one that all of training reads."""
    return time.monotonic()


class Pace:
    """Seconds per step since `begin`, without what is done in a `pause`: validations and saves.

    `typical` is for a forecast: it is smooth, and a few steps that took very long (the first one, a machine that was
    busy) do not change it. It is the median over the means of blocks of steps: a mean in each block, since a loader
    with several workers gives its batches in bursts.
    """

    block = 16  # steps; more than a loader has batches ready at once on most machines

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=10)
        self._begun: list[float] = []  # the steps of the block that is not full yet
        self._first: list[float] = []  # the first steps, until there are blocks enough
        self._blocks: deque[float] = deque(maxlen=65)  # after a thousand steps the old ones are forgotten
        self._since = now()

    def begin(self) -> None:
        """The first step of this process begins."""
        self._since = now()

    def step(self) -> None:
        """A step is done, and the next one begins."""
        end = now()
        seconds, self._since = end - self._since, end
        self._recent.append(seconds)
        self._begun.append(seconds)
        if len(self._blocks) < 3:
            self._first.append(seconds)
        if len(self._begun) == self.block:
            self._blocks.append(statistics.fmean(self._begun))
            self._begun = []

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done inside is no part of a step."""
        before = now()
        try:
            yield
        finally:
            self._since += now() - before

    @property
    def recent(self) -> float:
        """The mean of the last ten steps; 0: there was none yet."""
        return statistics.fmean(self._recent) if self._recent else 0.0

    @property
    def expected(self) -> float:
        """What the next step takes at most machines; 0 after the first step, which takes longer than the others."""
        return statistics.median_low(self._recent) if len(self._recent) > 1 else 0.0

    @property
    def typical(self) -> float | None:
        """The forecast for a step; None: after fewer than three steps there is none."""
        if len(self._blocks) >= 3:
            return statistics.median(self._blocks)
        if len(self._first) < 3:
            return None
        return (sum(self._first) - max(self._first)) / (len(self._first) - 1)  # the slowest is mostly the first
