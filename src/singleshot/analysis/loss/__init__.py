"""How the loss is spread over easy and hard anchors (Figure 4 of the focal loss paper)."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from singleshot.analysis.analysis import Analysis
from singleshot.flags import Flag

if TYPE_CHECKING:
    from singleshot.analysis.loss.result import LossDistribution
    from singleshot.data.dataset import Dataset
    from singleshot.detectors.detector import Detector


def _measure(detector: Detector, dataset: Dataset, **keywords: Any) -> LossDistribution:
    from singleshot.analysis.loss.measure import loss_distribution

    return loss_distribution(detector, dataset, **keywords)


def _gammas(text: str | list[float]) -> list[float]:
    if isinstance(text, list):  # the parser calls this again with its own result
        return text
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value < math.inf for value in values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected different numbers, 0 or more, such as 0,0.5,1,2, got {text!r}")
    return values


ANALYSIS = Analysis(
    line="how the loss is spread over easy and hard anchors, for several gamma",
    description="Shows how the loss is spread over easy and hard anchors.",
    notes="""\
Figure 4 of the focal loss paper: the focal loss of every anchor, for positives and negatives separately, whatever loss
the model was trained with. The table shows the share of the loss that the hardest anchors carry. If the model has a
softmax over classes and background, the loss is -(1 - p)^gamma log p, with p the probability of the right one.""",
    takes="detector",
    measure=_measure,
    flags=(
        Flag(
            "--gammas",
            "focusing parameters (default: %(default)s)",
            type=_gammas,
            default="0,0.5,1,2",
            metavar="G,G,...",
        ),
    ),
)
