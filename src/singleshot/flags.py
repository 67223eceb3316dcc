"""A flag of the command line, described where it is obeyed, and the types that flags have.

The folders that offer flags (analyses, for one) stand below the command line and import nothing of it.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from singleshot.errors import short


@dataclass(frozen=True)
class Flag:
    """One flag, as argparse takes it. Without a `type` it is a switch, which is off unless it is given."""

    name: str  # with its dashes: "--min-score"
    help: str
    type: Callable[[Any], Any] | None = None  # from text to the value; `argparse.ArgumentTypeError` for a mistake
    default: Any = None
    metavar: str | None = None

    @property
    def keyword(self) -> str:
        """The name of its value in Python: min_score."""
        return self.name.lstrip("-").replace("-", "_")

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Let a parser know it."""
        if self.type is None:
            parser.add_argument(self.name, action="store_true", help=self.help)
        else:
            parser.add_argument(self.name, type=self.type, default=self.default, metavar=self.metavar, help=self.help)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of a flag that takes a whole number, `least` or more, and not more than `most`."""
    expected = f"a whole number, {least} or more{'' if most is None else f', at most {most:,}'}"

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {short(text)}")
        return value

    return convert


def device(text: str) -> str:
    """The type of a flag that takes a device of PyTorch; whether the machine has it is asked later."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?|mps", text):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda, cuda:N or mps, got {short(text)}")
    return text


def number(text: str) -> float:
    """The type of a flag that takes a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {short(text)}")
    return value


def fraction(text: str) -> float:
    """The type of a flag that takes a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {short(text)}")
    return value


def points(text: str) -> float:
    """The type of a flag that takes points of a metric, from 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected points of AP, from 0 to 100, got {short(text)}")
    return value
