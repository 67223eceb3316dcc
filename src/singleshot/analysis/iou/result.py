"""The result of an analysis of scores and overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from singleshot.analysis.coefficients import Correlation, correlation
from singleshot.analysis.iou.section import iou_section
from singleshot.analysis.section import Section

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class ScoreAnalysis:
    """The result of one kind of score."""

    name: str  # "class score", "IoU-aware", "true IoU"
    alpha: float | None  # of the IoU-aware score; None: the plain product, or not an IoU-aware score
    scores: Floats32  # [N] of the detections that count
    ious: Floats32  # [N] with the best object of the detection's class
    positive_scores: Floats32  # [P] of the positive anchors, for the class of the matched object
    positive_ious: Floats32  # [P] of the decoded boxes with the matched object
    reachable: tuple[int, ...]  # objects with a candidate of IoU >= each of `thresholds`
    lost: tuple[int, ...]  # reachable objects that have no such box after NMS
    metrics: dict[str, float]  # AP, AP50, AP60, AP70, AP75, AP80, AP90; -1 where there is nothing to find

    def detections(self, min_iou: float = 0.0) -> Correlation:
        """Score and IoU of the detections with an IoU of at least `min_iou`."""
        chosen = self.ious >= min_iou
        return correlation(self.scores[chosen], self.ious[chosen])

    def positives(self) -> Correlation:
        """Score and IoU of the positive anchors, before NMS and any threshold: the same boxes for all scores."""
        return correlation(self.positive_scores, self.positive_ious)


@dataclass(frozen=True)
class IoUAnalysis:
    """Score against IoU of a detector's detections: with the class score, the IoU-aware score and the true IoU."""

    images: int
    objects: int  # without crowd regions and VOC's difficult objects
    min_score: float
    min_iou: float
    thresholds: tuple[float, ...]
    scores: tuple[ScoreAnalysis, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the individual detections; NaN where a coefficient is not defined."""

        def pairs(found: Correlation) -> dict[str, Any]:
            return {"count": found.count, "pearson": found.pearson, "spearman": found.spearman}

        return {
            "images": self.images,
            "objects": self.objects,
            "min_score": self.min_score,
            "min_iou": self.min_iou,
            "scores": [
                {
                    "name": one.name,
                    "alpha": one.alpha,
                    "detections": pairs(one.detections()),
                    "well_placed": pairs(one.detections(self.min_iou)),
                    "positive_anchors": pairs(one.positives()),
                    "nms": [
                        {"iou": iou, "reachable": reachable, "lost": lost}
                        for iou, reachable, lost in zip(self.thresholds, one.reachable, one.lost, strict=True)
                    ],
                    "metrics": dict(one.metrics),
                }
                for one in self.scores
            ],
        }

    def section(self) -> Section:
        """The tables and the figure."""
        return iou_section(self)
