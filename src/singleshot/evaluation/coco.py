"""COCO's twelve numbers, equal bit for bit to those of pycocotools.

hotcoco does the matching. It is a Rust port of pycocotools, with equal bits and many times as fast. If hotcoco is not
installed, pycocotools itself does it. Ids are passed as 1, 2, ..., because pycocotools takes an object with id 0 for
"no object" and counts its detection as wrong. So for a file with id 0 the numbers here are those that pycocotools gives
when its ids start at 1.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from singleshot.data.dataset import Dataset, Floats
from singleshot.evaluation.box_table import Found, Integers, Truth, found_columns, truth_columns
from singleshot.evaluation.detections import ImageDetections
from singleshot.forked import Once

# name: (is it a recall, index of the IoU threshold or all, area range, detections per image), as in summarize()
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_TOP1, _TOP10, _TOP100 = range(3)
_NUMBERS: dict[str, tuple[bool, slice, int, int]] = {
    "AP": (False, slice(None), _ALL, _TOP100),
    "AP50": (False, slice(0, 1), _ALL, _TOP100),
    "AP75": (False, slice(5, 6), _ALL, _TOP100),
    "APs": (False, slice(None), _SMALL, _TOP100),
    "APm": (False, slice(None), _MEDIUM, _TOP100),
    "APl": (False, slice(None), _LARGE, _TOP100),
    "AR1": (True, slice(None), _ALL, _TOP1),
    "AR10": (True, slice(None), _ALL, _TOP10),
    "AR100": (True, slice(None), _ALL, _TOP100),
    "ARs": (True, slice(None), _SMALL, _TOP100),
    "ARm": (True, slice(None), _MEDIUM, _TOP100),
    "ARl": (True, slice(None), _LARGE, _TOP100),
}


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's numbers: fractions between 0 and 1, or -1 where there is nothing to find."""

    numbers: dict[str, float]  # AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl
    AP: tuple[float, ...]  # of each class, in the order of the dataset
    AP50: tuple[float, ...]
    by_iou: dict[str, float]  # AP50, AP55 .. AP95: AP at this IoU alone, over all classes
    precision: Floats  # [10, 101, K] at IoU 0.5, 0.55 .. 0.95 and recall 0, 0.01 .. 1; all sizes, 100 per image
    scores: Floats  # [10, 101, K] the score at which this precision is reached


def coco_metrics(dataset: Dataset, detections: Sequence[ImageDetections]) -> CocoMetrics:
    """Measure detections by the rules of pycocotools.

    Difficult objects (VOC) count as crowds, and the areas are those of the records. The order matters for equal scores
    and for the last bit of the means, so it is pycocotools' order: boxes as in the files, and images and categories by
    id if the files have ids (`Dataset.own_ids`).
    """
    truth, found = truth_columns(dataset), found_columns(dataset, detections)
    count = len(dataset.class_names)
    if dataset.own_ids:
        image_ids = _ranks([record.id for record in dataset.records])
        category_ids = _ranks(dataset.category_ids)
    else:  # the order of the split and of the classes
        image_ids = np.arange(1, len(dataset) + 1)
        category_ids = np.arange(1, count + 1)
    if len(dataset) and count:
        precision, recall, scores = _matcher()(truth, found, image_ids, category_ids)
    else:
        precision = scores = np.full((10, 101, count, 4, 3), -1.0)
        recall = np.full((10, count, 4, 3), -1.0)
    numbers = {
        name: _mean((recall if is_recall else precision)[overlaps, ..., area, most])
        for name, (is_recall, overlaps, area, most) in _NUMBERS.items()
    }
    by_iou = {f"AP{50 + 5 * t}": _mean(precision[t : t + 1, ..., _ALL, _TOP100]) for t in range(10)}
    precision, scores = (table[..., category_ids - 1, _ALL, _TOP100] for table in (precision, scores))
    return CocoMetrics(
        numbers=numbers,
        AP=tuple(_mean(precision[:, :, k]) for k in range(count)),
        AP50=tuple(_mean(precision[:1, :, k]) for k in range(count)),
        by_iou=by_iou,
        precision=precision,
        scores=scores,
    )


_Tables = tuple[Floats, Floats, Floats]  # precision [T, R, K, A, M], recall [T, K, A, M], scores [T, R, K, A, M]


def _matcher() -> Callable[[Truth, Found, Integers, Integers], _Tables]:
    try:
        import hotcoco  # noqa: F401
    except ImportError:
        return _pycocotools
    return _hotcoco


_pool = Once()  # hotcoco keeps a pool of threads; it is started by the first evaluation of a process


def _hotcoco(truth: Truth, found: Found, image_ids: Integers, category_ids: Integers) -> _Tables:
    if _pool.is_of_parent():
        from singleshot.evaluation.apart import in_new_process

        return in_new_process(truth, found, image_ids, category_ids)
    return matched(truth, found, image_ids, category_ids)


def matched(truth: Truth, found: Found, image_ids: Integers, category_ids: Integers) -> _Tables:
    """The tables that hotcoco computes in this process: precision, recall and scores."""
    import hotcoco

    ground = hotcoco.COCO.from_arrays(
        [{"id": i} for i in range(1, len(image_ids) + 1)],
        [{"id": i, "name": str(i)} for i in range(1, len(category_ids) + 1)],
        image_ids[truth.images],
        category_ids[truth.labels],
        truth.xywh,
        ids=np.arange(1, len(truth.labels) + 1),
        area=truth.areas,
        iscrowd=truth.ignored,
    )
    evaluation = hotcoco.COCOeval(ground, ground.load_res(_results(found, image_ids, category_ids)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return _tables(evaluation.eval)


def _pycocotools(truth: Truth, found: Found, image_ids: Integers, category_ids: Integers) -> _Tables:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = zip(
        image_ids[truth.images].tolist(),
        category_ids[truth.labels].tolist(),
        truth.xywh.tolist(),
        truth.areas.tolist(),
        truth.ignored.tolist(),
        strict=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress with print
        ground, results = COCO(), COCO()
        ground.dataset = {
            "images": [{"id": i} for i in range(1, len(image_ids) + 1)],
            "categories": [{"id": i, "name": str(i)} for i in range(1, len(category_ids) + 1)],
            "annotations": [
                {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
                for i, (image, category, box, area, crowd) in enumerate(rows, 1)
            ],
        }
        ground.createIndex()
        if len(found.labels):
            results = ground.loadRes(_results(found, image_ids, category_ids))
        else:  # loadRes looks at the first result
            results.dataset = {**ground.dataset, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(ground, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return _tables(evaluation.eval)


def _results(found: Found, image_ids: Integers, category_ids: Integers) -> Floats:
    """Results as both libraries take them: [N, 7] image, x, y, w, h, score, category."""
    return np.column_stack([image_ids[found.images], found.xywh, found.scores, category_ids[found.labels]])


def _tables(evaluation: Any) -> _Tables:
    return evaluation["precision"], evaluation["recall"], evaluation["scores"]


def _ranks(ids: Sequence[int | str]) -> Integers:
    """The place of each id, from 1, when they are sorted: numbers as numbers, then texts."""
    by_id = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    ranks = np.empty(len(ids), np.int64)
    ranks[by_id] = np.arange(1, len(ids) + 1)
    return ranks


def _mean(values: Floats) -> float:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else -1.0
