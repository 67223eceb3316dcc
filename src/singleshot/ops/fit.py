"""The size that an image is resized to when its aspect ratio is kept.

Sides are whole pixels: the exact product, rounded to the nearest, halves up, as in Detectron2 and mmdetection, and
never 0. It is computed in whole numbers here, so that it is the same on every machine. Applying a rule twice changes
nothing: `fit(*fit(h, w)) == fit(h, w)`. Only with torchvision's rule do a few in a hundred sizes change by one more
pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from singleshot.errors import UserError


class Fit(Protocol):
    """A rule: (height, width) of an image -> (height, width) to resize it to."""

    @property
    def nominal(self) -> tuple[int, int]:
        """(height, width) of the largest landscape result."""

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size for an image of `height` x `width`."""


@dataclass(frozen=True)
class ShortSide:
    """The short side becomes `short`, but the long side at most `longest`: scale = min(short / s, longest / l).

    RetinaNet uses 800 / 1333 (Detectron's configuration; the paper, section 4.1, gives only the short side).
    """

    short: int = 800
    longest: int = 1333

    def __post_init__(self) -> None:
        _check_sides("the short side", self.short, self.longest)

    @property
    def nominal(self) -> tuple[int, int]:
        """(height, width) of the largest landscape image that comes out."""
        return self.short, self.longest

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size for an image of `height` x `width`."""
        s, l = min(height, width), max(height, width)  # noqa: E741
        if self.short * l <= self.longest * s:
            return _scaled(height, width, self.short, s)
        return _scaled(height, width, self.longest, l)


@dataclass(frozen=True)
class TorchvisionShortSide(ShortSide):
    """`ShortSide` as torchvision computes it: in floating point, with both sides truncated to whole pixels.

    So the short side may be one pixel less than `short`.
    """

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size for an image of `height` x `width`."""
        scale = min(self.short / min(height, width), self.longest / max(height, width))
        return max(math.floor(height * scale), 1), max(math.floor(width * scale), 1)


@dataclass(frozen=True)
class LongestSide:
    """The longest side becomes `longest`: scale = longest / l."""

    longest: int

    def __post_init__(self) -> None:
        _check_sides("the longest side", self.longest, self.longest)

    @property
    def nominal(self) -> tuple[int, int]:
        """(height, width) of the largest result, a square."""
        return self.longest, self.longest

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """The size for an image of `height` x `width`."""
        return _scaled(height, width, self.longest, max(height, width))


@dataclass(frozen=True)
class ShortSideRange:
    """Scale jitter: `ShortSide` with a random short side, a whole number from `low` to `high`, both included.

    The caller draws the number, because it has the random generator. `at` gives the rule for that number.
    """

    low: int
    high: int
    longest: int = 1333

    def __post_init__(self) -> None:
        _check_sides("the short side", self.low, self.longest)
        _check_sides("the short side", self.high, self.longest)
        if self.low > self.high:
            raise UserError(
                f"jitter: expected two short sides, the smaller one first, such as [640, 800], "
                f"got {self.low}, {self.high}"
            )

    def at(self, short: int) -> ShortSide:
        """The rule for a short side that the caller has drawn."""
        return ShortSide(short, self.longest)

    def contains(self, height: int, width: int) -> bool:
        """Whether some short side of the range gives this size, so that no resizing is needed."""
        short = min(max(min(height, width), self.low), self.high)
        return self.at(short)(height, width) == (height, width)


def _scaled(height: int, width: int, numerator: int, denominator: int) -> tuple[int, int]:
    """Both sides times numerator / denominator, rounded half up, at least one pixel."""
    h, w = ((2 * side * numerator + denominator) // (2 * denominator) for side in (height, width))
    return max(h, 1), max(w, 1)


def _check_sides(name: str, side: int, longest: int) -> None:
    for value in (side, longest):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{name} of an image must be a whole number of pixels, 1 or more, got {value!r}")
    if side > longest:
        raise UserError(
            f"{name} of an image would be {side} pixels, but the longest side is limited to {longest}: raise that limit"
        )
