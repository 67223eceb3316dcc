"""How scores and the IoU of the boxes are related, and what NMS loses (the IoU-aware paper's question)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from singleshot.analysis.analysis import Analysis
from singleshot.flags import Flag, fraction

if TYPE_CHECKING:
    from singleshot.analysis.iou.result import IoUAnalysis
    from singleshot.data.dataset import Dataset
    from singleshot.detectors.detector import Detector


def _measure(detector: Detector, dataset: Dataset, *, alpha: Any, **keywords: Any) -> IoUAnalysis:
    from singleshot.analysis.iou.measure import iou_analysis

    return iou_analysis(detector, dataset, alpha=None if alpha == "none" else alpha, **keywords)


def _alpha(text: str) -> float | str:
    if text in ("none", "model"):
        return text
    try:
        return fraction(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, or none, got {text!r}") from None


ANALYSIS = Analysis(
    line="how scores and the IoU of the boxes are related, and what NMS loses",
    description="Shows how scores and the IoU of the boxes are related, and what NMS loses.",
    notes="""\
Prints the correlation of score and IoU, the well-placed boxes that NMS lost, and AP. It does so for the class score
alone, for the IoU-aware score if the model has an IoU head, and with --oracle for the same score with the true IoU.""",
    takes="detector",
    measure=_measure,
    flags=(
        Flag(
            "--min-score",
            "detections below this score are not counted (default: 0.05)",
            type=fraction,
            default=0.05,
            metavar="S",
        ),
        Flag("--min-iou", "IoU of a well-placed box (default: 0.5)", type=fraction, default=0.5, metavar="T"),
        Flag(
            "--alpha",
            "the score is p^A IoU^(1-A); none: p IoU (default: the model's own A, else 0.5)",
            type=_alpha,
            default="model",
            metavar="A|none",
        ),
        Flag("--oracle", "also measure with the true IoU in place of the predicted one"),
    ),
)
