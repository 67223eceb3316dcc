"""Pascal VOC average precision, by the rules of the VOC development kit (VOCevaldet.m, VOCap.m)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from singleshot.data.dataset import Dataset, Floats
from singleshot.evaluation.box_table import Found, Integers, Truth, found_columns, truth_columns
from singleshot.evaluation.detections import ImageDetections

# 0:0.1:1 as in every published evaluator. The products 3 * 0.1, 6 * 0.1 and 7 * 0.1 are one last bit above 0.3, 0.6 and
# 0.7, so a recall of exactly 3/10, 6/10 or 7/10 does not reach its point.
_RECALLS_07 = tuple(k * 0.1 for k in range(11))
_PAIRS_AT_ONCE = 1 << 21  # bounds the memory in crowded images


@dataclass(frozen=True)
class VocClass:
    """One class: its two average precisions (None if there is nothing to find) and its curve.

    The curve has one row for each detection that is right or wrong, best score first. Detections of difficult objects
    are neither right nor wrong.
    """

    voc07: float | None  # 11-point average precision
    voc10: float | None  # area under the curve
    boxes: int  # objects to find: those that are not difficult
    recall: Floats  # [D]
    precision: Floats  # [D]
    scores: Floats  # [D]


@dataclass(frozen=True)
class VocMetrics:
    """Both VOC metrics: for each class in the order of the dataset, and as means over the classes that have objects."""

    classes: tuple[VocClass, ...]

    @property
    def voc07(self) -> float | None:
        """VOC2007's mean average precision, 11-point; None if there is nothing to find at all."""
        return _mean([found.voc07 for found in self.classes])

    @property
    def voc10(self) -> float | None:
        """Mean average precision since VOC2010, area under the curve; None if there is nothing to find at all."""
        return _mean([found.voc10 for found in self.classes])


def voc_metrics(dataset: Dataset, detections: Sequence[ImageDetections], *, min_overlap: float = 0.5) -> VocMetrics:
    """Measure detections by the rules of the VOC devkit.

    Detections of a class are taken best score first; equal scores keep their order. A detection belongs to the object
    of its image that it overlaps most, with pixels counted inclusively (width x2 - x1 + 1). Then it is
    - neither right nor wrong, if they overlap by `min_overlap` or more and the object is difficult (or a COCO crowd);
    - right, if they overlap by `min_overlap` or more and no better detection has taken the object;
    - wrong otherwise.
    """
    truth, found = truth_columns(dataset), found_columns(dataset, detections)
    best_first = np.lexsort((found.order, -found.scores, found.labels))
    by_image = np.lexsort((truth.images, truth.labels))  # stable: the order of the files within an image
    labels = np.arange(len(dataset.class_names) + 1)
    of_found = np.searchsorted(found.labels[best_first], labels)
    of_truth = np.searchsorted(truth.labels[by_image], labels)
    return VocMetrics(
        tuple(
            _one_class(
                truth,
                by_image[of_truth[label] : of_truth[label + 1]],
                found,
                best_first[of_found[label] : of_found[label + 1]],
                min_overlap,
            )
            for label in labels[:-1]
        )
    )


def eleven_point_ap(recall: Floats, precision: Floats) -> float:
    """VOC2007: the mean, over the recalls 0, 0.1, ... 1, of the best precision at this recall or more."""
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # [D + 1], 0 after the last one
    first = np.searchsorted(recall, _RECALLS_07, side="left")  # recall never falls
    return float(best[first].sum() / 11)


def area_ap(recall: Floats, precision: Floats) -> float:
    """VOC2010 and later: the area under the curve, with the precision made monotonically decreasing."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return min(1.0, float((np.diff(recall, prepend=0.0) * best).sum()))  # the sum may round up


def _one_class(truth: Truth, truth_rows: Integers, found: Found, found_rows: Integers, min_overlap: float) -> VocClass:
    ignored = truth.ignored[truth_rows]
    boxes = int((~ignored).sum())
    overlap, owner = _best_overlaps(
        found.boxes[found_rows], found.images[found_rows], truth.boxes[truth_rows], truth.images[truth_rows]
    )
    hit = overlap >= min_overlap
    owner = np.where(hit, owner, -1)
    dont_care = np.zeros(len(owner), bool)
    dont_care[hit] = ignored[owner[hit]]
    right = np.zeros(len(owner), bool)
    # An object belongs to the first (best) detection that chose it. A detection may choose an object that is taken.
    owners, firsts = np.unique(owner, return_index=True)
    right[firsts[owners >= 0]] = True
    right &= ~dont_care
    counted = ~dont_care
    true, seen = np.cumsum(right[counted]), np.arange(1, counted.sum() + 1)
    precision = true / seen
    recall = true / boxes if boxes else np.zeros(len(true))
    return VocClass(
        voc07=eleven_point_ap(recall, precision) if boxes else None,
        voc10=area_ap(recall, precision) if boxes else None,
        boxes=boxes,
        recall=recall,
        precision=precision,
        scores=found.scores[found_rows][counted],
    )


def _best_overlaps(
    boxes: Floats, images: Integers, truth: Floats, truth_images: Integers
) -> tuple[Floats, NDArray[np.int64]]:
    """For each detection [D] the largest overlap with an object [G] of its image, and the (first) object that has it.

    The overlap is 0 and the object -1 if the detection touches no object. A detection is compared only with objects
    beside or above it: those that begin neither far to its left nor to its right. So thousands of objects in an image
    do not make millions of pairs.
    """
    order = np.lexsort((truth[:, 0], truth_images))  # by image, then by their left edges
    widest = np.zeros(int(max(truth_images.max(initial=-1), images.max(initial=-1))) + 1)
    np.maximum.at(widest, truth_images, truth[:, 2] - truth[:, 0])
    edges = truth_images[order] + 1j * truth[order, 0]  # complex numbers are sorted by the first part, then the second
    # Two pixels more than can touch: what lies on the edge is decided by the overlap itself.
    start = np.searchsorted(edges, images + 1j * (boxes[:, 0] - widest[images] - 2), side="left")
    count = np.maximum(0, np.searchsorted(edges, images + 1j * (boxes[:, 2] + 2), side="right") - start)
    best, owner = np.zeros(len(boxes)), np.full(len(boxes), -1, np.int64)
    with_objects = np.flatnonzero(count)
    ends = np.cumsum(count[with_objects])
    done = 0
    while done < len(with_objects):
        before = ends[done - 1] if done else 0
        upto = max(done + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        rows = with_objects[done:upto]
        # Pairs are ordered by detection.
        firsts = ends[done:upto] - count[rows] - before
        detection = np.repeat(rows, count[rows])
        candidate = order[np.arange(len(detection)) - np.repeat(firsts - start[rows], count[rows])]
        overlap = _inclusive_iou(boxes[detection], truth[candidate])
        best[rows] = np.maximum.reduceat(overlap, firsts)
        is_best = overlap == np.repeat(best[rows], count[rows])
        owner[rows] = np.minimum.reduceat(np.where(is_best, candidate, len(truth)), firsts)
        done = upto
    owner[best <= 0] = -1
    return best, owner


def _inclusive_iou(a: Floats, b: Floats) -> Floats:
    """Overlap of pairs of boxes [P, 4] that include their corner pixels; 0 where they do not touch."""
    shared = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1
    touch = (shared > 0).all(1)
    intersection = np.where(touch, shared[:, 0] * shared[:, 1], 0.0)
    area_a, area_b = ((box[:, 2] - box[:, 0] + 1) * (box[:, 3] - box[:, 1] + 1) for box in (a, b))
    union = np.where(touch, area_a + area_b - intersection, 1.0)
    return intersection / union


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
