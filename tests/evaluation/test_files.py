"""The whole way on real data: the readers, files of detections, and the numbers of the official evaluator."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from singleshot.data.dataset import Dataset
from singleshot.data.open import open_dataset
from singleshot.evaluation.detections import ImageDetections, read_detections, save_detections
from singleshot.evaluation.metrics import evaluate


def moved_truth(dataset: Dataset, seed: int) -> list[ImageDetections]:
    """The true boxes three times over, shaken, with coarse scores and some other classes: a mediocre detector."""
    rng = np.random.default_rng(seed)
    found = []
    for record in dataset.records:
        boxes = np.tile(record.boxes, (3, 1))
        boxes = np.round(boxes + rng.normal(0, 4, boxes.shape), 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.tile(record.labels, 3)
        wrong = rng.random(len(labels)) < 0.2
        labels[wrong] = rng.integers(0, len(dataset.class_names), wrong.sum())
        found.append(ImageDetections(boxes, np.round(rng.random(len(labels)), 2), labels))
    return found


def pycocotools_numbers(truth: COCO, results: Path) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(number) for number in evaluation.stats]


@pytest.mark.parametrize(
    "file",
    [
        "coco128/annotations/instances_train2017.json",  # gaps in the ids, crowds, empty images and classes
        "chess/coco_json/instances_val.json",  # ids that are texts
    ],
)
def test_coco_files_give_the_numbers_of_pycocotools(shared: Path, tmp_path: Path, file: str) -> None:
    dataset = open_dataset(shared / file)
    results = save_detections(tmp_path, dataset, moved_truth(dataset, 0))[0]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(shared / file))
    metrics = evaluate(dataset, read_detections(results, dataset))
    assert list(metrics.coco.numbers.values()) == pycocotools_numbers(truth, results)
    from_text = evaluate(dataset, read_detections(tmp_path, dataset))
    assert from_text.voc.voc10 == pytest.approx(metrics.voc.voc10, abs=1e-6)


@pytest.mark.parametrize("folder", ["bccd", "neu_det"])
def test_voc_folders_give_the_numbers_of_pycocotools(shared: Path, tmp_path: Path, folder: str) -> None:
    dataset = open_dataset(shared / folder, split="val")
    results = save_detections(tmp_path, dataset, moved_truth(dataset, 1))[0]
    truth = COCO()
    truth.dataset = as_coco(dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    metrics = evaluate(dataset, read_detections(results, dataset))
    assert list(metrics.coco.numbers.values()) == pycocotools_numbers(truth, results)
    from_text = evaluate(dataset, read_detections(tmp_path, dataset))
    assert from_text.coco.numbers == pytest.approx(metrics.coco.numbers, abs=1e-6)
    assert from_text.voc.voc07 == pytest.approx(metrics.voc.voc07, abs=1e-6)


def as_coco(dataset: Dataset) -> dict[str, Any]:
    """A VOC dataset as a COCO file: iscrowd is difficult, w is xmax - xmin."""
    annotations: list[dict[str, Any]] = []
    for record in dataset.records:
        for (x1, y1, x2, y2), label, difficult in zip(
            record.boxes.tolist(), record.labels.tolist(), record.difficult.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.name,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(difficult),
                }
            )
    return json.loads(
        json.dumps(
            {
                "images": [{"id": record.name} for record in dataset.records],
                "categories": [{"id": k, "name": name} for k, name in enumerate(dataset.class_names, 1)],
                "annotations": annotations,
            }
        )
    )
