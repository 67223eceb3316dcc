"""Calls that take turns: rounds in a random order, with a pause and a call that is not counted before each one."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Seconds = Mapping[str, float]
"""The parts of one call; their sum is the whole."""

_PAUSE = 0.25  # seconds: threads of the engine before go on spinning for about 0.2


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


def interleaved(
    calls: Sequence[Callable[[], Seconds]],
    *,
    rounds: int,
    pause: float = _PAUSE,
    seed: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> tuple[list[list[Seconds]], bool]:
    """The seconds of each call in each round, and whether all rounds were made: Ctrl-C ends them early.

    All take turns, so that a disturbance affects all of them. Engines in one process disturb each other: their threads
    go on spinning for a while after a call. So there is a pause before each call, and a call that is not counted, which
    wakes the threads of this one and brings its weights into the caches.
    """
    found: list[list[Seconds]] = [[] for _ in calls]
    order = list(range(len(calls)))
    shuffle = random.Random(seed)
    done = 0
    try:
        for _ in range(rounds):
            shuffle.shuffle(order)
            for place in order:
                if len(calls) > 1:
                    time.sleep(pause)
                calls[place]()
                found[place].append(calls[place]())
                done += 1
                if tell is not None:
                    tell(done, rounds * len(calls))
    except KeyboardInterrupt:
        return found, False
    return found, True
