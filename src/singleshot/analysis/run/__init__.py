"""How training runs went, beside each other: losses and validations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from singleshot.analysis.analysis import Analysis

if TYPE_CHECKING:
    from singleshot.analysis.run.curves import RunAnalysis


def _measure(paths: Sequence[str]) -> RunAnalysis:
    from singleshot.analysis.run.curves import analyse_runs

    return analyse_runs(paths)


ANALYSIS = Analysis(
    line="how training runs went, beside each other: losses and validations",
    description="Shows how training runs went: losses and validations.",
    notes="""\
A run may still be going on. The loss is the mean of the last logged steps; "best" is the best of the validations, by
what the recipe calls best.""",
    takes="runs",
    measure=_measure,
)
