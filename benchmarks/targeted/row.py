"""One row: what is measured, what was aimed at, what came out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Texts of a row. `reached` is None where nothing was measured here, or the target is for another machine."""

    what: str
    target: str
    measured: str
    reached: bool | None = None

    def line(self) -> str:
        """For a table of Markdown."""
        word = {True: "yes", False: "no", None: "-"}[self.reached]
        return f"| {self.what} | {self.target} | {self.measured} | {word} |"


HEADER = "| what | target | measured | reached |\n| --- | --- | --- | --- |"


def at_most(what: str, milliseconds: float, limit: float, note: str = "") -> Row:
    """A time that must not be longer."""
    return Row(what, f"<= {limit:g} ms", f"{milliseconds:.1f} ms{note}", milliseconds <= limit)


def at_least(what: str, times: float, least: float, note: str = "", *, here: bool = True) -> Row:
    """A ratio that must not be smaller. `here`: whether the target is for a machine like this one."""
    return Row(what, f">= {least:g}x", f"{times:.2f}x{note}", times >= least if here else None)


def elsewhere(what: str, target: str, command: str) -> Row:
    """What needs another environment: the command that measures it there."""
    return Row(what, target, f"`{command}`")


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of the ratios within the rounds."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
