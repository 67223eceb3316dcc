"""COCO's numbers against pycocotools on the files' own content, to the last bit."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from singleshot.evaluation.coco import coco_metrics

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture(params=["hotcoco", "pycocotools"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the numbers: with hotcoco, and where it is not installed."""
    if request.param == "pycocotools":
        monkeypatch.setitem(sys.modules, "hotcoco", None)
    return str(request.param)


def oracle(
    content: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[Any, tuple[float, float]]]:
    """pycocotools as its own demo calls it, on the files' content: the 12 numbers, (AP, AP50) per category id."""
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)  # the longest part, and not looked at
    content, results = copy.deepcopy(content), copy.deepcopy(results)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        else:
            found = COCO()
            found.dataset = {**content, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]

    def mean(values: np.ndarray) -> float:
        return float(np.mean(values[values > -1])) if (values > -1).any() else -1.0

    classes = {
        category: (mean(precision[:, :, k, 0, 2]), mean(precision[0, :, k, 0, 2]))
        for k, category in enumerate(evaluation.params.catIds)
    }
    numbers = dict(zip(NAMES, map(float, evaluation.stats), strict=True))
    for t in range(10):
        numbers[f"AP{50 + 5 * t}"] = mean(precision[t, :, :, 0, 2])
    return numbers, classes


def assert_equal_to_oracle(content, results, coco_dataset, coco_found) -> None:
    dataset = coco_dataset(content)
    metrics = coco_metrics(dataset, coco_found(dataset, results))
    numbers, classes = oracle(content, results)
    assert {**metrics.numbers, **metrics.by_iou} == numbers
    assert list(metrics.numbers) == list(NAMES)
    assert {
        c: (ap, ap50) for c, ap, ap50 in zip(dataset.category_ids, metrics.AP, metrics.AP50, strict=True)
    } == classes


def random_case(
    seed: int, *, images: int = 12, categories: int = 4, boxes: int = 60, found: int = 300, text_ids: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO file and results with everything that is awkward: gaps and disorder in the ids, crowds, areas that are not
    the boxes', sides of exactly 32 and 96, images and classes without boxes, equal scores, misplaced detections."""
    rng = np.random.default_rng(seed)
    image_ids: list[Any] = rng.choice(10_000, images, replace=False).tolist()
    if text_ids:
        image_ids = [f"image_{i}" for i in image_ids]
    category_ids = rng.choice(90, categories, replace=False).tolist()
    content: dict[str, Any] = {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids],
        "annotations": [],
    }
    for i in range(boxes):
        x, y = rng.uniform(0, 400, 2)
        w, h = rng.choice([32.0, 96.0, 50.0], 2) if rng.random() < 0.3 else np.exp(rng.uniform(1, 5.5, 2))
        content["annotations"].append(
            {
                "id": int(i * 3 + 1),
                "image_id": image_ids[rng.integers(0, max(1, images - 2))],
                "category_id": category_ids[rng.integers(0, max(1, categories - 1))],
                "bbox": [float(x), float(y), float(w), float(h)],
                "area": float(w * h) if rng.random() < 0.5 else float(w * h * rng.uniform(0.4, 1)),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
    results = []
    for _ in range(found):
        if content["annotations"] and rng.random() < 0.8:
            source = content["annotations"][rng.integers(0, boxes)]
            image, category = source["image_id"], source["category_id"]
            box = np.array(source["bbox"]) + rng.choice([0.0, 1.0, 6.0]) * rng.normal(0, 1, 4)
            box[2:] = np.maximum(box[2:], 0.5)
        else:
            image, category = image_ids[rng.integers(0, images)], category_ids[rng.integers(0, categories)]
            box = np.concatenate([rng.uniform(0, 400, 2), np.exp(rng.uniform(1, 5.5, 2))])
        results.append(
            {
                "image_id": image,
                "category_id": category,
                "bbox": box.tolist(),
                "score": float(np.round(rng.random(), 2)),
            }
        )
    return content, results


@pytest.mark.parametrize("seed", range(8))
def test_random_cases_equal_pycocotools(seed: int, library: str, coco_dataset, coco_found) -> None:
    assert_equal_to_oracle(*random_case(seed), coco_dataset, coco_found)


@pytest.mark.parametrize(
    "case",
    [
        {"found": 0},
        {"boxes": 0},
        {"boxes": 0, "found": 0},
        {"images": 1, "categories": 1, "boxes": 3, "found": 250},  # more than 100 in one image
        {"images": 2, "categories": 1, "boxes": 1, "found": 1},
        {"images": 40, "categories": 12, "boxes": 20, "found": 30},  # most classes and images empty
        {"text_ids": True},
    ],
    ids=str,
)
def test_limits_equal_pycocotools(case: dict[str, Any], library: str, coco_dataset, coco_found) -> None:
    assert_equal_to_oracle(*random_case(99, **case), coco_dataset, coco_found)


def test_published_numbers_of_cocos_own_sample(shared: Path, coco_dataset, coco_found) -> None:
    folder = shared / "metrics" / "coco_fake100"
    content = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    dataset = coco_dataset(content)
    metrics = coco_metrics(dataset, coco_found(dataset, results))
    assert metrics.numbers == json.loads((folder / "expected.json").read_text())["bbox"]
    assert_equal_to_oracle(content, results, coco_dataset, coco_found)


def test_published_numbers_of_a_second_toolkit(shared: Path, coco_dataset, coco_found) -> None:
    folder = shared / "metrics" / "padilla_review"
    content = json.loads((folder / "tests/test_coco_eval/gts/sampled_gts_bbox_area.json").read_text())
    results = json.loads((folder / "tests/test_coco_eval/dets/sampled_bbox_results.json").read_text())["annotations"]
    dataset = coco_dataset(content)
    metrics = coco_metrics(dataset, coco_found(dataset, results))
    expected = next(v for k, v in json.loads((folder / "expected.json").read_text()).items() if "test_coco_eval" in k)
    assert list(metrics.numbers.values()) == pytest.approx(list(expected.values()), abs=1e-6)
    assert_equal_to_oracle(content, results, coco_dataset, coco_found)


def test_real_boxes_with_text_ids_equal_pycocotools(shared: Path, coco_dataset, coco_found) -> None:
    content = json.loads((shared / "chess" / "coco_json" / "instances_val.json").read_text())
    rng = np.random.default_rng(0)
    results = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 13)),
            "bbox": (np.array(a["bbox"]) + rng.normal(0, 3, 4)).tolist(),
            "score": float(np.round(rng.random(), 1)),
        }
        for a in content["annotations"] * 3
    ]
    assert_equal_to_oracle(content, results, coco_dataset, coco_found)


def test_the_files_own_sides_decide_about_the_size(library: str, coco_dataset, coco_found) -> None:
    # 32.4 + 32 - 32.4 is not 32 in floating point: worked out from the corners, the box would be no longer small.
    assert (32.4 + 32.0) - 32.4 > 32.0
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [200.0, 32.4, 32.0, 32.0], "area": 900.0}],
    }
    content["annotations"][0]["iscrowd"] = 0
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [32.4, 32.4, 32.0, 32.0], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [200.0, 32.4, 32.0, 32.0], "score": 0.8},
    ]
    assert_equal_to_oracle(content, results, coco_dataset, coco_found)
    dataset = coco_dataset(content)
    assert coco_metrics(dataset, coco_found(dataset, results)).numbers["APs"] == pytest.approx(0.5)


def test_sides_that_no_longer_fit_the_corners_are_not_used(coco_dataset, coco_found) -> None:
    content, results = random_case(3)
    dataset = coco_dataset(content)
    found = coco_found(dataset, results)
    moved = tuple(replace(record, boxes=record.boxes + 1000) for record in dataset.records)
    assert coco_metrics(replace(dataset, records=moved), found).numbers["AR100"] == 0


def test_classes_of_a_longer_list_change_no_mean(coco_dataset, coco_found) -> None:
    content, results = random_case(5)
    dataset = coco_dataset(content)
    found = coco_found(dataset, results)
    longer = replace(dataset, class_names=(*dataset.class_names, "other"), category_ids=(*dataset.category_ids, 1_000))
    short, long = coco_metrics(dataset, found), coco_metrics(longer, found)
    assert long.numbers == short.numbers
    assert long.AP[:-1] == short.AP
    assert long.AP[-1] == -1


def test_a_perfect_detector_has_one_everywhere(library: str, make_dataset, make_found) -> None:
    sides = (20, 60, 200)  # small, medium, large
    dataset = make_dataset([[(0, 10, 10, 10 + side, 10 + side)] for side in sides])
    found = [make_found([(0, 0.9, *record.boxes[0])]) for record in dataset.records]
    assert list(coco_metrics(dataset, found).numbers.values()) == pytest.approx([1] * 12)


def test_ap_at_one_iou_by_hand(library: str, make_dataset, make_found) -> None:
    """Four objects, found with overlaps of 0.55, 0.65, 0.8 and 0.91: at IoU t those above t count."""
    dataset = make_dataset([[(0, 0, 0, 100, 100)] for _ in range(4)])
    found = [make_found([(0, 0.9, 0, 0, 100, side)]) for side in (55.5, 65.5, 80.5, 91)]
    metrics = coco_metrics(dataset, found)
    assert list(metrics.by_iou) == [f"AP{t}" for t in range(50, 100, 5)]
    assert metrics.by_iou["AP50"] == metrics.numbers["AP50"] == pytest.approx(1)
    assert metrics.by_iou["AP75"] == metrics.numbers["AP75"]
    assert metrics.by_iou["AP95"] == 0
    falling = list(metrics.by_iou.values())
    assert falling == sorted(falling, reverse=True)
    assert sum(falling) / 10 == pytest.approx(metrics.numbers["AP"])
    assert metrics.by_iou["AP90"] == metrics.by_iou["AP85"] < metrics.by_iou["AP80"] == metrics.by_iou["AP70"]


def test_one_right_one_wrong_by_hand(library: str, make_dataset, make_found) -> None:
    # The wrong one scores higher: precision is 1/2 at every recall.
    dataset = make_dataset([[(0, 0, 0, 100, 100)]])
    found = [make_found([(0, 0.9, 300, 300, 400, 400), (0, 0.8, 0, 0, 100, 100)])]
    metrics = coco_metrics(dataset, found)
    assert metrics.numbers["AP"] == pytest.approx(0.5)
    assert metrics.numbers["AR1"] == 0
    assert metrics.numbers["AR10"] == 1
    assert metrics.numbers["APs"] == -1
    assert metrics.precision.shape == metrics.scores.shape == (10, 101, 1)
    assert (metrics.scores[:, 0] == 0.9).all()
    assert (metrics.scores[:, 1:] == 0.8).all()


def test_voc_difficult_is_a_crowd_and_sides_are_differences(library: str, make_dataset, make_found) -> None:
    dataset = make_dataset([[(0, 1, 1, 33, 33), (0, 100, 100, 200, 200, 1)]])
    found = [make_found([(0, 0.9, 110, 110, 190, 190), (0, 0.8, 1, 1, 33, 33)])]
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 32, 32], "area": 32 * 32, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [100, 100, 100, 100], "area": 1e4, "iscrowd": 1},
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [110, 110, 80, 80], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [1, 1, 32, 32], "score": 0.8},
    ]
    metrics = coco_metrics(dataset, found)
    numbers = metrics.numbers
    assert {**numbers, **metrics.by_iou} == oracle(content, results)[0]
    assert numbers["AP"] == pytest.approx(1)
    assert numbers["APs"] == numbers["APm"] == pytest.approx(1)  # an area of 32 * 32 is both


def test_nothing_at_all(library: str, make_dataset, make_found) -> None:
    empty = coco_metrics(make_dataset([]), [])
    assert set(empty.numbers.values()) == {-1.0}
    assert empty.AP == (-1.0,)
    assert set(empty.by_iou.values()) == {-1.0}
    without_classes = coco_metrics(make_dataset([[]], ()), [make_found()])
    assert set(without_classes.numbers.values()) == {-1.0}
    assert without_classes.AP == ()


def test_says_nothing(library: str, capfd: pytest.CaptureFixture[str], coco_dataset, coco_found) -> None:
    content, results = random_case(1)
    dataset = coco_dataset(content)
    coco_metrics(dataset, coco_found(dataset, results))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_an_annotation_with_id_0_is_the_one_exception(coco_dataset, coco_found, library: str) -> None:
    """pycocotools takes the id 0 for "no object", so a detection of it is wrong. Here ids are those that start at 1."""
    box = {"image_id": 1, "category_id": 1, "area": 400, "iscrowd": 0}
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{**box, "id": k, "bbox": [50 * k, 0, 20, 20]} for k in range(2)],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [50 * k, 0, 20, 20], "score": 0.9 - k / 10} for k in range(2)]
    dataset = coco_dataset(content)
    ours = coco_metrics(dataset, coco_found(dataset, results)).numbers
    theirs, _ = oracle(content, results)
    assert (ours["AP"], ours["AR100"]) == (1.0, 1.0)
    assert (theirs["AP"] < 0.6, theirs["AR100"]) == (True, 0.5)
    for annotation in content["annotations"]:
        annotation["id"] += 1
    assert oracle(content, results)[0] == {
        **theirs,
        **ours,
        **coco_metrics(dataset, coco_found(dataset, results)).by_iou,
    }
