"""The errors of one image: the kind of each detection, and which objects are found (TIDE, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from singleshot.data.dataset import ImageRecord
from singleshot.evaluation.detections import ImageDetections
from singleshot.ops.boxes import coverage, pairwise_iou

RIGHT, CONFUSED, MISPLACED, BOTH, DUPLICATE, BACKGROUND = range(6)
KINDS = ("right", "confused", "misplaced", "both", "duplicate", "background")
NEITHER = -1  # the detection finds a crowd or a difficult object, or is beyond COCO's limit per image and class
_LIMIT = 100

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sorting:
    """The N detections and the G objects of one image, sorted."""

    kind: Integers  # [N] the kind of each detection: an index in `KINDS`, or NEITHER
    subject: Integers  # [N] the object of the record that the kind refers to; -1: none
    finder: Integers  # [G] the right detection of each object; -1: none
    counts: NDArray[np.bool_]  # [G] whether it is an object to find


def sort_image(found: ImageDetections, record: ImageRecord, iou: float, background: float) -> Sorting:
    """Match the detections of an image by COCO's rule, and name the error of all others; see `error_analysis`."""
    ignored = record.crowd | record.difficult
    boxes, truth = (torch.from_numpy(np.asarray(b, np.float64).reshape(-1, 4)) for b in (found.boxes, record.boxes))
    overlap = torch.where(torch.from_numpy(ignored), coverage(boxes, truth), pairwise_iou(boxes, truth)).numpy()
    same = found.labels[:, None] == record.labels[None, :]
    kind = np.full(len(found), BACKGROUND)
    subject = np.full(len(found), -1)
    finder = np.full(len(record.labels), -1)

    own = np.where(same & ~ignored, overlap, -1.0)  # with the objects to find of the detection's class
    other = np.where(~same & ~ignored, overlap, -1.0)
    near = own.max(1, initial=-1.0, keepdims=True) < iou
    for test, least, name in (
        (other, background, BOTH),
        (own, iou, DUPLICATE),
        (other, iou, CONFUSED),
        (np.where(near, own, -1.0), background, MISPLACED),
    ):  # a later test overrides the earlier ones
        hit = test.max(1, initial=-1.0) >= least
        kind[hit], subject[hit] = name, test[hit].argmax(1) if hit.any() else -1

    excused = np.where(same & ignored, overlap, -1.0).max(1, initial=-1.0) >= iou
    order = np.argsort(-found.scores, kind="stable")
    for row in order[~near[order, 0]]:
        free = np.where(finder < 0, own[row], -1.0)
        best = int(free.argmax())
        if free[best] >= iou:
            kind[row], subject[row], finder[best] = RIGHT, best, row
    kind[excused & (kind != RIGHT)] = NEITHER
    _beyond_limit(found, order, kind, finder)
    return Sorting(kind, subject, finder, ~ignored)


def _beyond_limit(found: ImageDetections, order: Integers, kind: Integers, finder: Integers) -> None:
    """COCO counts the 100 best detections of a class in an image."""
    for label in np.flatnonzero(np.bincount(found.labels) > _LIMIT) if len(found) else ():
        rest = order[found.labels[order] == label][_LIMIT:]
        finder[np.isin(finder, rest)] = -1
        kind[rest] = NEITHER


def fates_of(one: Sorting, counted: NDArray[np.bool_]) -> Integers:
    """The outcome of each object [G], given the detections that count: RIGHT, CONFUSED, MISPLACED or NEITHER."""
    fate = np.full(len(one.finder), NEITHER)
    for kind in (MISPLACED, CONFUSED, RIGHT):
        fate[one.subject[counted & (one.kind == kind)]] = kind
    return fate
