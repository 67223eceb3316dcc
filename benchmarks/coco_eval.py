"""COCO evaluation: this project's function compared with pycocotools, on a generated set of the size of val2017.

    python benchmarks/coco_eval.py [--images 5000] [--repeats 3]

Both get the same boxes and are timed in turns: ours from arrays, pycocotools from parsed results, to the 12 numbers.
These must be equal to the last bit. Neither time includes the reading of files.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.evaluation.coco import coco_metrics
from singleshot.evaluation.detections import ImageDetections, as_corners

CLASSES = 80
OBJECTS = 36_781 / 5_000  # boxes per image in val2017


def generated(images: int, found_per_image: int, seed: int = 0) -> tuple[Dataset, list[ImageDetections]]:
    """A dataset of 80 classes, with a few classes in each image, and the detections of a mediocre detector."""
    rng = np.random.default_rng(seed)
    records, detections = [], []
    for i in range(images):
        count = int(rng.poisson(OBJECTS))
        classes = rng.integers(0, CLASSES, 3)
        xywh = np.column_stack([rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(2, 5.5, (count, 2)))]).round(2)
        none = np.zeros(count, bool)
        labels = rng.choice(classes, count)
        records.append(
            ImageRecord(
                path=Path(f"{i:012d}.jpg"),
                name=f"{i:012d}.jpg",
                id=i + 1,
                size=(480, 640),
                boxes=as_corners(xywh),
                labels=labels,
                difficult=none,
                crowd=rng.random(count) < 0.01,
                truncated=none,
                areas=xywh[:, 2] * xywh[:, 3] * rng.uniform(0.4, 1, count),
                xywh=xywh,
            )
        )
        source = rng.integers(0, max(count, 1), found_per_image)
        boxes = xywh[source] if count else np.full((found_per_image, 4), 20.0)
        boxes = (boxes + rng.normal(0, 6, boxes.shape)).round(2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        guess = labels[source] if count else np.zeros(found_per_image, np.int64)
        guess = np.where(rng.random(found_per_image) < 0.6, guess, rng.integers(0, CLASSES, found_per_image))
        detections.append(ImageDetections(as_corners(boxes), rng.random(found_per_image).round(4), guess, xywh=boxes))
    names = tuple(f"class {k}" for k in range(CLASSES))
    ids = tuple(range(1, CLASSES + 1))
    return Dataset(Path("generated"), "coco", "val", names, ids, tuple(records), own_ids=True), detections


def for_pycocotools(dataset: Dataset, detections: list[ImageDetections]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of the two files."""
    annotations = [
        {"image_id": r.id, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for r in dataset.records
        if r.xywh is not None
        for label, box, area, crowd in zip(
            r.labels.tolist(), r.xywh.tolist(), r.areas.tolist(), r.crowd.tolist(), strict=True
        )
    ]
    content = {
        "images": [{"id": record.id} for record in dataset.records],
        "categories": [{"id": k, "name": name} for k, name in enumerate(dataset.class_names, 1)],
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)],
    }
    results = [
        {"image_id": record.id, "category_id": label + 1, "bbox": box, "score": score}
        for record, found in zip(dataset.records, detections, strict=True)
        for label, box, score in zip(found.labels.tolist(), found.sides().tolist(), found.scores.tolist(), strict=True)
    ]
    return content, results


def pycocotools_numbers(content: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    """The 12 numbers as pycocotools' demo computes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(number) for number in evaluation.stats]


def main() -> None:
    """The command line: measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--found", type=int, default=100, help="detections per image")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    dataset, detections = generated(options.images, options.found)
    content, results = for_pycocotools(dataset, detections)
    print(
        f"{len(dataset)} images, {len(content['annotations'])} boxes, {len(results)} detections, {CLASSES} classes; "
        f"{platform.machine()}, Python {platform.python_version()}"
    )
    ours, theirs = [], []
    for turn in range(options.repeats):
        start = time.perf_counter()
        numbers = list(coco_metrics(dataset, detections).numbers.values())
        ours.append(time.perf_counter() - start)
        inputs = copy.deepcopy((content, results))  # pycocotools changes its inputs
        start = time.perf_counter()
        expected = pycocotools_numbers(*inputs)
        theirs.append(time.perf_counter() - start)
        if numbers != expected:
            raise SystemExit(f"the numbers differ:\nours        {numbers}\npycocotools {expected}")
        print(f"turn {turn + 1}: ours {ours[-1]:.3f} s, pycocotools {theirs[-1]:.3f} s")
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    print(
        f"median: ours {statistics.median(ours):.3f} s, pycocotools {statistics.median(theirs):.3f} s, "
        f"{ratio:.1f} times as fast; all 12 numbers equal (AP {expected[0]:.4f})"
    )


if __name__ == "__main__":
    main()
