"""The contract of an analysis: what it is given, what it returns, and what the command line asks it for.

Everything that is made of an analysis, its verb, text, page and pictures, is made from these two classes. So a module
that describes one imports nothing heavy at its top: `singleshot --help` reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from singleshot.flags import Flag

if TYPE_CHECKING:
    from singleshot.analysis.section import Section


class Findings(Protocol):
    """What an analysis found: numbers, usually a frozen dataclass."""

    def to_json(self) -> dict[str, Any]:
        """Plain data. Fractions stay fractions, pixels pixels; NaN where a number is not defined."""

    def section(self) -> Section:
        """The same for people: a title, paragraphs, tables and figures."""


@dataclass(frozen=True)
class Analysis:
    """One analysis. Its module holds it under the name `ANALYSIS`.

    `measure` does the work and is called, by what the analysis `takes`, as
    - "detector": `measure(detector, dataset, drop_difficult=, batch_size=, workers=, progress=, **own)`. It runs the
      network itself (`analysis.passes`);
    - "detections": `measure(dataset, detections, **own)`. The detections, one entry per record, come from a detector
      or from files, the analysis does not ask;
    - "runs": `measure(paths, **own)`, with the paths of run folders.
    `own` has a value for each of `flags`, by its keyword. Bad input is a `UserError`.
    """

    line: str  # what it shows, in `singleshot --help`
    description: str  # a sentence, at the top of `singleshot analyse NAME --help`
    notes: str  # how to read it, below the flags
    takes: Literal["detector", "detections", "runs"]
    measure: Callable[..., Findings]
    flags: tuple[Flag, ...] = ()
