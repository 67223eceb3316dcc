"""What keeps AP down: a detector's errors by kind (TIDE: Bolya et al., ECCV 2020, section 2), class and size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from singleshot.analysis.errors.mend import mended, without_missed
from singleshot.analysis.errors.result import ErrorAnalysis
from singleshot.analysis.errors.sorting import (
    BACKGROUND,
    BOTH,
    CONFUSED,
    DUPLICATE,
    KINDS,
    MISPLACED,
    NEITHER,
    RIGHT,
    Sorting,
    sort_image,
)
from singleshot.analysis.errors.tallies import Tallies
from singleshot.data.dataset import Dataset
from singleshot.errors import UserError
from singleshot.evaluation.coco import coco_metrics
from singleshot.evaluation.detections import ImageDetections

MISSED = "missed"


def error_analysis(
    dataset: Dataset,
    detections: Sequence[ImageDetections],
    *,
    min_score: float | None = None,
    iou: float = 0.5,
    background: float = 0.1,
) -> ErrorAnalysis:
    """Sort the detections of a dataset, one entry per record, by their errors.

    Detections are matched by COCO's rule: best score first, each with the free object of its class that it overlaps
    most, if their IoU is at least `iou`. For every other detection the first of these that holds is its kind of error:
    - misplaced: it overlaps an object of its class by `background` or more, and none by `iou` or more;
    - confused: an object of another class by `iou` or more;
    - duplicate: an object of its class, which a better detection has taken, by `iou` or more;
    - both: an object of another class by `background` or more;
    - background: it overlaps no object by `background` or more.
    An object is missed when no detection is right for it, confused with it or misplaced near it. Detections of crowds
    and of VOC's difficult objects are neither right nor wrong.

    `gains` counts every detection, whatever its score. It says how AP50 would rise if one kind of error were fixed:
    - confused or misplaced: for each object that is not found, the best such detection becomes right, and all others
      of the kind are removed;
    - the other kinds of detections: they are removed;
    - missed objects: they are removed. A class that has no object left then counts as 1. (TIDE's own program counts it
      as 0 if it was seen anywhere, and else leaves it out.)
    The gains do not add up (TIDE, section 2.3). The tallies count detections with a score of `min_score` or more; the
    default is the score with the best F1 over all classes together.

    Raises:
        UserError: there is no object to find, or the detections do not fit the dataset.
    """
    AP50 = coco_metrics(dataset, detections).AP50  # checks both
    if not any(ap >= 0 for ap in AP50):
        raise UserError(f"{dataset.root}: split {dataset.split!r} has no objects to find; choose another split")
    sortings = [
        sort_image(found, record, iou, background) for found, record in zip(detections, dataset.records, strict=True)
    ]
    if min_score is None:
        min_score = _best_f1(detections, sortings)
    before = _mean(AP50, AP50)
    gains = {
        KINDS[kind]: _mean(coco_metrics(dataset, mended(detections, dataset, sortings, kind)).AP50, AP50) - before
        for kind in (CONFUSED, MISPLACED, BOTH, DUPLICATE, BACKGROUND)
    }
    gains[MISSED] = _mean(coco_metrics(without_missed(dataset, sortings), detections).AP50, AP50) - before
    tallies = Tallies(dataset, detections, sortings, min_score)
    return ErrorAnalysis(
        images=len(dataset),
        AP50=before,
        gains=gains,
        min_score=min_score,
        classes=tallies.by_class(dataset.class_names),
        sizes=tallies.by_size(),
        confusions=tallies.confusions(dataset.class_names),
    )


def _best_f1(detections: Sequence[ImageDetections], sortings: Sequence[Sorting]) -> float:
    """The score threshold with the best F1; 0 if no detection is right."""
    kinds = np.concatenate([one.kind for one in sortings])
    scores = np.concatenate([found.scores for found in detections])[kinds != NEITHER]
    right = (kinds == RIGHT)[kinds != NEITHER]
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    objects = sum(int(one.counts.sum()) for one in sortings)
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + objects)
    last = np.append(scores[order][1:] < scores[order][:-1], True)  # a threshold keeps all detections of equal score
    return float(scores[order][np.where(last, f1, -1.0).argmax()])


def _mean(AP50: Sequence[float], before: Sequence[float]) -> float:
    """The mean over the classes that had an object to find; a class with no object left counts as 1."""
    return float(np.mean([ap if ap >= 0 else 1.0 for ap, had in zip(AP50, before, strict=True) if had >= 0]))
