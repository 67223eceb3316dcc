"""The range of a number, declared beside the field of a dataclass and checked in one place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from singleshot.errors import UserError, short

MOST_PIXELS = 16_384  # of a side of an image for a network
MOST_AREA = 64_000_000  # pixels of such an image: a float32 one takes 0.8 GB
MOST_CLASSES = 10**5
MOST_IMAGES = 10**5  # in a batch
MOST_WORKERS = 1_000  # threads or processes
"""Limits that several places share."""


def check_area(size: Sequence[int]) -> None:
    """Refuse (height, width) of a network's input that no memory is there for. What is no size is refused elsewhere."""
    if len(size) != 2 or not all(isinstance(side, int) for side in size):
        return
    height, width = size
    if max(size) > MOST_PIXELS:
        raise UserError(f"the input must be (height, width), 1 to {MOST_PIXELS} pixels each, got {short(tuple(size))}")
    if height * width > MOST_AREA:
        raise UserError(
            f"the network's input would be {height}x{width}, {height * width:,} pixels; expected at most "
            f"{MOST_AREA:,}: choose a smaller size"
        )


_KEY = "range"  # in the metadata of a field


@dataclass(frozen=True)
class Range:
    """The numbers from `least`, or above `above`, to `most`, or below `below`."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, int | float)
            and (isinstance(value, int) or math.isfinite(value))
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{_told(self.least)} to {_told(self.most)}"
        first = f"{_told(self.least)} or more" if self.least is not None else f"above {_told(self.above)}"
        return (
            f"{first}, at most {_told(self.most)}" if self.most is not None else f"{first}, below {_told(self.below)}"
        )


def within(
    *, least: float | None = None, most: float | None = None, above: float | None = None, below: float | None = None
) -> dict[str, Any]:
    """Metadata of a field whose number, or each of whose numbers, must be in a range. null is not looked at."""
    return {_KEY: Range(least=least, most=most, above=above, below=below)}


def range_of(field: dataclasses.Field[Any]) -> Range | None:
    """The range that a field declares."""
    found: Range | None = field.metadata.get(_KEY)
    return found


def check_ranges(value: Any, *, path: str = "", where: str = "") -> None:
    """Check the numbers of a dataclass, and of the dataclasses in it, against the ranges that its fields declare.

    `where` (a file) and `path` (the dotted keys above) are for the message.

    Raises:
        UserError: a number is outside. The message names the field, its value and the range.
    """
    for field in dataclasses.fields(value):
        name, held, allowed = f"{path}{field.name}", getattr(value, field.name), range_of(field)
        if allowed is not None:
            for key, number in _items(name, held):
                if number is not None and number not in allowed:
                    nothing = ", or null" if field.default is None or "None" in str(field.type) else ""
                    place = f"{where}: " if where else ""
                    raise UserError(f"{place}{key} is {short(number)}; expected {allowed}{nothing}")
        for key, part in _items(name, held):
            if dataclasses.is_dataclass(part) and not isinstance(part, type):
                check_ranges(part, path=f"{key}.", where=where)


def _items(name: str, held: Any) -> Iterator[tuple[str, Any]]:
    """A value with its key, or each of several values with its own."""
    if not isinstance(held, tuple):
        yield name, held
    else:
        yield from ((f"{name}[{k}]", item) for k, item in enumerate(held))


def _told(number: float | None) -> str:
    return "2**63" if number == 2**63 else f"{number:,}"
