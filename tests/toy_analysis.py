"""An analysis in one file, as somebody would add one: how far the boxes' centres are from those of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singleshot.analysis import Analysis
from singleshot.flags import Flag, fraction

if TYPE_CHECKING:
    from singleshot.analysis import Section
    from singleshot.data.dataset import Dataset
    from singleshot.evaluation.detections import ImageDetections


@dataclass(frozen=True)
class Offsets:
    """In pixels, from each object to the nearest detection of its class; NaN where there is none."""

    classes: tuple[str, ...]
    objects: tuple[int, ...]
    means: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            name: {"objects": n, "offset": mean}
            for name, n, mean in zip(self.classes, self.objects, self.means, strict=True)
        }

    def section(self) -> Section:
        from singleshot.analysis.figure import Axis, Bars, Figure, Panel
        from singleshot.analysis.section import Column, Section, Table

        return Section(
            "Offsets <of> centres",
            f"{sum(self.objects)} objects",
            (
                Table(["class", "objects", Column("offset", ".2f")], list(zip(*self.columns(), strict=True))),
                Figure([Panel([Bars(self.classes, self.means, form=".1f")], y=Axis("pixels", low=0))], alt="a & b"),
            ),
            next_step="Train longer where the offsets are large.",
        )

    def columns(self) -> tuple[Sequence[str], Sequence[int], Sequence[float]]:
        return self.classes, self.objects, self.means


def measure(dataset: Dataset, detections: Sequence[ImageDetections], *, from_score: float, squares: bool) -> Offsets:
    import numpy as np

    distances: list[list[float]] = [[] for _ in dataset.class_names]
    for record, found in zip(dataset.records, detections, strict=True):
        for box, label in zip(record.boxes, record.labels, strict=True):
            boxes = found.boxes[(found.labels == label) & (found.scores >= from_score)]
            if len(boxes):
                apart = np.linalg.norm((boxes[:, :2] + boxes[:, 2:] - box[:2] - box[2:]) / 2, axis=1).min()
                distances[label].append(float(apart**2 if squares else apart))
    means = tuple(float(np.mean(one)) if one else float("nan") for one in distances)
    return Offsets(tuple(dataset.class_names), tuple(map(len, distances)), means)


ANALYSIS = Analysis(
    line="how far the centres are from those of the objects",
    description="Says how far the centres are from those of the objects.",
    notes="Objects without a detection of their class are left out.",
    takes="detections",
    measure=measure,
    flags=(
        Flag("--from-score", "detections from this score on", type=fraction, default=0.01, metavar="S"),
        Flag("--squares", "means of the squares"),
    ),
)
