"""All metrics of detections in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from singleshot.data.dataset import Dataset
from singleshot.data.limits import metric_note
from singleshot.evaluation.coco import CocoMetrics, coco_metrics
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.voc import VocMetrics, voc_metrics


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve numbers, VOC's two means, and the numbers of each class. All are fractions between 0 and 1."""

    class_names: tuple[str, ...]
    coco: CocoMetrics
    voc: VocMetrics
    notes: tuple[str, ...] = ()  # what a reader of the numbers has to know: a limit that the data exceeds

    def to_json(self) -> dict[str, Any]:
        """Plain data; -1 (COCO) or None (VOC) where there is nothing to find. "boxes" counts the objects to find."""
        return {
            "coco": dict(self.coco.numbers),
            "voc07": {"mAP": self.voc.voc07},
            "voc10": {"mAP": self.voc.voc10},
            "per_class": {
                name: {"AP": ap, "AP50": ap50, "voc07": found.voc07, "voc10": found.voc10, "boxes": found.boxes}
                for name, ap, ap50, found in zip(
                    self.class_names, self.coco.AP, self.coco.AP50, self.voc.classes, strict=True
                )
            },
        }

    def table(self) -> str:
        """A readable table in percent, with "-" where there is nothing to find."""
        header = ("class", "boxes", "AP", "AP50", "VOC07", "VOC10")
        rows = [
            (name, str(found.boxes), *map(_percent, (ap, ap50, found.voc07, found.voc10)))
            for name, ap, ap50, found in zip(
                self.class_names, self.coco.AP, self.coco.AP50, self.voc.classes, strict=True
            )
        ]
        numbers = self.coco.numbers
        total = str(sum(found.boxes for found in self.voc.classes))
        means = map(_percent, (numbers["AP"], numbers["AP50"], self.voc.voc07, self.voc.voc10))
        rows.append(("all (mean)", total, *means))
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (header, *rows)]
        rule = "-" * len(lines[0])
        ap = "  ".join(f"{name} {_percent(value)}" for name, value in numbers.items() if name.startswith("AP"))
        ar = "  ".join(f"{name} {_percent(value)}" for name, value in numbers.items() if name.startswith("AR"))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", f"COCO (%)  {ap}", f"          {ar}"])


def evaluate(dataset: Dataset, detections: Sequence[ImageDetections]) -> Metrics:
    """Measure the detections of a dataset, one entry per record in the order of `dataset.records`.

    COCO's numbers are those of pycocotools, VOC's those of the devkit: see `coco_metrics` and `voc_metrics`. No image
    is opened.

    Raises `UserError` if an image has no annotation, or if the detections do not fit the dataset.
    """
    note = metric_note(dataset)
    return Metrics(
        dataset.class_names,
        coco_metrics(dataset, detections),
        voc_metrics(dataset, detections),
        notes=() if note is None else (note,),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"
