"""How training runs went, side by side: losses and validations."""

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
    line="how training runs went, side by side: losses and validations",
    description="Shows how training runs went: losses and validations.",
    notes="""\
A run may still be training. The loss is the mean of the last logged steps. "best" is the best validation, by the metric
that the recipe names (validation.metric).""",
    takes="runs",
    measure=_measure,
)
