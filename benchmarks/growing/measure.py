"""The time of one piece of work at several sizes, and the power of the size that it grows with."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Action = Callable[[], object]
_LONG = 1.0  # seconds: an action that takes longer is not repeated as often as asked
_NOISE = 0.2  # how far an exponent measured between two sizes lies off on a machine that does other work too


@dataclass(frozen=True)
class Work:
    """One row: work that is done at several sizes."""

    family: str  # the panel of the plot, and what grows
    name: str
    numbers: tuple[int, ...]
    quick: tuple[int, ...]  # the sizes of --quick
    make: Callable[[int], Action]  # everything that is not measured is done here
    power: float = 1.0  # the size counts as number ** power: sides of images as pixels
    most: float = 1.0  # the exponent that the problem itself has
    why: str = ""  # what explains a `most` that is not 1
    processor: bool = True  # processor time (work of one thread) or the clock's


@dataclass(frozen=True)
class Row:
    """What was measured of a work."""

    family: str
    name: str
    points: tuple[tuple[int, float], ...]  # (number, milliseconds)
    exponent: float  # over all sizes
    at_the_end: float  # between the two largest
    most: float
    why: str

    @property
    def grows_as_it_should(self) -> bool:
        """Whether it grows no faster than the problem itself."""
        return self.at_the_end <= self.most + _NOISE

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "points": [list(point) for point in self.points]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Row:
        """From plain data."""
        return cls(**{**row, "points": tuple((number, took) for number, took in row["points"])})


def measured(work: Work, *, rounds: int, quick: bool) -> Row:
    """Measure one work at all its sizes. A size is made, measured and dropped before the next one is made."""
    clock = time.process_time if work.processor else time.perf_counter
    points = []
    for number in work.quick if quick else work.numbers:
        action = work.make(number)
        points.append((number, _median(action, rounds, clock)))
        del action
    sizes = [(number**work.power, took) for number, took in points]
    return Row(
        work.family, work.name, tuple(points), _slope(sizes), _slope(sizes[-2:]), work.most, work.why
    )  # fmt: skip


def _median(action: Action, rounds: int, clock: Callable[[], float]) -> float:
    """Milliseconds. A short action is done once before, and repeated within a round; a long one is done once."""
    start, before = clock(), time.perf_counter()
    action()
    first, wall = clock() - start, time.perf_counter() - before
    if wall > 4 * _LONG:
        return round(1e3 * first, 4)
    inside = max(1, math.ceil(0.01 / max(wall, 1e-6)))  # a round takes at least 10 ms
    times = []
    for _ in range(rounds if wall < _LONG else min(rounds, 2)):
        start = clock()
        for _ in range(inside):
            action()
        times.append(1e3 * (clock() - start) / inside)
    return round(statistics.median(times), 4)


def _slope(points: list[tuple[float, float]]) -> float:
    """The exponent: the slope of the line through the logarithms, by least squares."""
    x, y = [math.log(number) for number, _ in points], [math.log(max(took, 1e-6)) for _, took in points]
    return round(statistics.linear_regression(x, y).slope, 2)
