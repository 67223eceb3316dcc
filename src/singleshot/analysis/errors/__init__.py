"""What keeps AP down: missed, misplaced, confused, ...; by class and size (TIDE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from singleshot.analysis.analysis import Analysis
from singleshot.flags import Flag, fraction

if TYPE_CHECKING:
    from singleshot.analysis.errors.result import ErrorAnalysis
    from singleshot.data.dataset import Dataset
    from singleshot.evaluation.detections import ImageDetections


def _measure(dataset: Dataset, detections: Sequence[ImageDetections], *, min_score: float | None) -> ErrorAnalysis:
    from singleshot.analysis.errors.measure import error_analysis

    return error_analysis(dataset, detections, min_score=min_score)


ANALYSIS = Analysis(
    line="what keeps AP down: missed, misplaced, confused, ...; by class and size",
    description="Sorts the errors of a detector by kind, class and size.",
    notes="""\
The kinds of error are TIDE's: missed objects, and detections that are misplaced (the right class, an IoU of 0.1 to
0.5), confused (on an object of another class), both of these, duplicates, or on the background.""",
    takes="detections",
    measure=_measure,
    flags=(Flag("--min-score", "count detections from this score on (default: best F1)", type=fraction, metavar="S"),),
)
