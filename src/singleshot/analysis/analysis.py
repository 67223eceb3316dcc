"""The contract of an analysis: what it takes, what it returns, and what the command line needs from it.

The verb, the text, the page and the pictures of an analysis are all made from these two classes. `singleshot --help`
imports every module that describes an analysis, so such a module imports nothing heavy at its top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from singleshot.flags import Flag

if TYPE_CHECKING:
    from singleshot.analysis.section import Section


class Findings(Protocol):
    """The result of an analysis: numbers, usually a frozen dataclass."""

    def to_json(self) -> dict[str, Any]:
        """Plain data. Fractions stay fractions, pixels stay pixels; NaN where a number is not defined."""

    def section(self) -> Section:
        """The same for a reader: a title, paragraphs, tables and figures."""


@dataclass(frozen=True)
class Analysis:
    """One analysis. Its module holds it under the name `ANALYSIS`.

    `measure` does the work. How it is called depends on what the analysis `takes`:
    - "detector": `measure(detector, dataset, drop_difficult=, batch_size=, workers=, progress=, **own)`. It runs the
      network itself (`analysis.passes`);
    - "detections": `measure(dataset, detections, **own)`. There is one entry per record. Whether they come from a
      detector or from files makes no difference;
    - "runs": `measure(paths, **own)`, with the paths of run folders.
    `own` has a value for each of `flags`, by its keyword. Bad input raises `UserError`.
    """

    line: str  # what it shows: the line in `singleshot --help`
    description: str  # one sentence at the top of `singleshot analyse NAME --help`
    notes: str  # how to read the result; stands below the flags
    takes: Literal["detector", "detections", "runs"]
    measure: Callable[..., Findings]
    flags: tuple[Flag, ...] = ()
