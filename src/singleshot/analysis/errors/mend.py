"""Detections and datasets without one kind of error, to see what it costs (TIDE, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from singleshot.analysis.errors.sorting import CONFUSED, MISPLACED, NEITHER, Integers, Sorting, fates_of
from singleshot.data.dataset import Dataset
from singleshot.evaluation.detections import ImageDetections, as_sides


def mended(
    detections: Sequence[ImageDetections], dataset: Dataset, sortings: Sequence[Sorting], kind: int
) -> list[ImageDetections]:
    """The detections without one kind of error, given as its index in `KINDS`.

    For each object that is not found, the best detection that is confused with it or misplaced near it is moved onto
    it. All others of the kind are removed.
    """
    result = []
    for found, record, one in zip(detections, dataset.records, sortings, strict=True):
        boxes, labels = found.boxes.copy(), found.labels.copy()
        keep = one.kind != kind
        if kind in (CONFUSED, MISPLACED):
            best = _candidates(found, one)
            best = best[one.kind[best] == kind]
            boxes[best], labels[best] = record.boxes[one.subject[best]], record.labels[one.subject[best]]
            keep[best] = True
        sides = found.sides().copy()
        moved = (boxes != found.boxes).any(1)
        sides[moved] = as_sides(boxes[moved])
        order = None if found.order is None else found.order[keep]
        result.append(ImageDetections(boxes[keep], found.scores[keep], labels[keep], xywh=sides[keep], order=order))
    return result


def _candidates(found: ImageDetections, one: Sorting) -> Integers:
    """The best detection that is confused with, or misplaced near, each object that is not found."""
    rows = np.flatnonzero((one.kind == CONFUSED) | (one.kind == MISPLACED))
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    subjects, firsts = np.unique(one.subject[rows], return_index=True)
    return rows[firsts[one.finder[subjects] < 0]]


def without_missed(dataset: Dataset, sortings: Sequence[Sorting]) -> Dataset:
    """The dataset without its missed objects: no detection is right for them, confused with or misplaced near them."""
    records = []
    for record, one in zip(dataset.records, sortings, strict=True):
        keep = ~one.counts | (fates_of(one, np.ones(len(one.kind), bool)) != NEITHER)
        columns = {
            name: getattr(record, name)[keep]
            for name in ("boxes", "labels", "difficult", "crowd", "truncated", "areas")
        }
        records.append(replace(record, **columns, xywh=None if record.xywh is None else record.xywh[keep]))
    return replace(dataset, records=tuple(records))
