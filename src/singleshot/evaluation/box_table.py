"""The ground truth and the detections of a whole dataset as columns: one row per box, the input of both evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from singleshot.data.dataset import Dataset, Floats, ImageRecord
from singleshot.errors import UserError, some
from singleshot.evaluation.detections import ImageDetections, as_corners, as_sides

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """Every ground-truth box. Images are in the order of the records, boxes in the order of the files."""

    images: Integers  # [N] index into `Dataset.records`
    labels: Integers  # [N]
    boxes: Floats  # [N, 4] xyxy
    xywh: Floats  # [N, 4]
    areas: Floats  # [N] for COCO's small, medium and large
    ignored: NDArray[np.bool_]  # [N] difficult or crowd: a detection of it is neither right nor wrong


@dataclass(frozen=True)
class Found:
    """Every detection. Images are in the order of the records."""

    images: Integers  # [N] index into `Dataset.records`
    labels: Integers  # [N]
    boxes: Floats  # [N, 4] xyxy
    xywh: Floats  # [N, 4]
    scores: Floats  # [N]
    order: Integers  # [N] position in the file that the detection was read from; without a file, the row number


def truth_columns(dataset: Dataset) -> Truth:
    """Collect the ground truth.

    Raises `UserError` if an image has no annotation (without it nothing can be measured), or if a ground-truth box is
    not finite.
    """
    records = dataset.records
    missing = [record.name for record in records if not record.annotated]
    if missing:
        raise UserError(
            f"{dataset.root}: {len(missing)} of {len(records)} images of split {dataset.split!r} have no annotation "
            f"({some(missing)}), and without annotations nothing can be measured; "
            f"add the annotations, or take the images out of the split"
        )
    boxes = _rows([record.boxes for record in records])
    xywh = _rows([_sides(record) for record in records])
    areas = np.concatenate([np.asarray(record.areas, np.float64).reshape(-1) for record in records] or [np.zeros(0)])
    images = np.repeat(np.arange(len(records), dtype=np.int64), [len(record.labels) for record in records])
    bad = ~np.isfinite(boxes).all(1)
    if bad.any():
        first = int(bad.argmax())
        record = records[images[first]]
        raise UserError(
            f"{record.annotation or record.name}: a ground-truth box is not finite: {boxes[first].tolist()}; correct it"
        )
    return Truth(
        images=images,
        labels=_joined([record.labels for record in records]),
        boxes=boxes,
        xywh=xywh,
        areas=areas,
        ignored=_joined([record.difficult | record.crowd for record in records]).astype(bool),
    )


def found_columns(dataset: Dataset, detections: Sequence[ImageDetections]) -> Found:
    """Collect the detections.

    Raises `UserError` if they do not fit the dataset: a different number of images, a label that is not one of the
    classes, or a box or score that is not finite.
    """
    if len(detections) != len(dataset):
        raise UserError(f"{len(dataset)} images but detections for {len(detections)}: one entry per record is needed")
    boxes = _rows([found.boxes for found in detections])
    xywh = _rows([found.sides() for found in detections])
    scores = np.concatenate([np.asarray(found.scores, np.float64) for found in detections] or [np.zeros(0)])
    labels = _joined([found.labels for found in detections])
    images = np.repeat(np.arange(len(detections), dtype=np.int64), [len(found) for found in detections])
    bad = ~(np.isfinite(boxes).all(1) & np.isfinite(scores))
    if bad.any():
        first = int(bad.argmax())
        raise UserError(
            f"image {dataset.records[images[first]].name!r}: a detection is not finite "
            f"(box {boxes[first].tolist()}, score {scores[first]})"
        )
    outside = (labels < 0) | (labels >= len(dataset.class_names))
    if outside.any():
        first = int(outside.argmax())
        raise UserError(
            f"image {dataset.records[images[first]].name!r}: a detection has label {labels[first]}, "
            f"but the dataset has {len(dataset.class_names)} classes, counted from 0"
        )
    rows = np.arange(len(labels), dtype=np.int64)
    ordered = len(detections) > 0 and all(found.order is not None or not len(found) for found in detections)
    order = _joined([found.order for found in detections if found.order is not None]) if ordered else rows
    return Found(images, labels, boxes, xywh, scores, order)


def _sides(record: ImageRecord) -> Floats:
    """The file's own x, y, w, h if the record has them; otherwise computed from the corners."""
    boxes = np.asarray(record.boxes, np.float64).reshape(-1, 4)
    if record.xywh is not None and np.array_equal(as_corners(record.xywh), boxes):
        return np.asarray(record.xywh, np.float64).reshape(-1, 4)
    return as_sides(boxes)


def _rows(parts: Sequence[Floats]) -> Floats:
    return np.concatenate([np.asarray(part, np.float64).reshape(-1, 4) for part in parts] or [np.zeros((0, 4))])


def _joined(parts: Sequence[NDArray[np.int64] | NDArray[np.bool_]]) -> Integers:
    return np.concatenate([np.asarray(part).astype(np.int64).reshape(-1) for part in parts] or [np.zeros(0, np.int64)])
