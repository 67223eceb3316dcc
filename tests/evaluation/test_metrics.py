"""All metrics together: the document, the table, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from singleshot.errors import UserError
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import evaluate

COCO = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture
def metrics(make_dataset, make_found):
    rows = [(0, 1, 1, 200, 200), (0, 300, 1, 400, 200), (1, 1, 300, 50, 350), (2, 5, 5, 90, 90, 1)]
    dataset = make_dataset([rows, []], ["cat", "dog", "difficult only", "absent"])
    return evaluate(dataset, [make_found([(0, 0.9, 1, 1, 200, 200), (3, 0.8, 1, 1, 9, 9)]), make_found()])


def test_the_document(metrics) -> None:
    document = metrics.to_json()
    assert list(document) == ["coco", "voc07", "voc10", "per_class"]
    assert list(document["coco"]) == COCO
    assert list(document["voc07"]) == list(document["voc10"]) == ["mAP"]
    assert list(document["per_class"]) == ["cat", "dog", "difficult only", "absent"]
    assert document["voc10"]["mAP"] == 0.25  # half of the cats, none of the dogs
    assert document["voc07"]["mAP"] == pytest.approx(6 / 11 / 2)
    cat = document["per_class"]["cat"]
    assert cat == {"AP": cat["AP50"], "AP50": cat["AP50"], "voc07": 6 / 11, "voc10": 0.5, "boxes": 2}
    assert cat["AP"] == pytest.approx(51 / 101)
    assert document["per_class"]["dog"] == {"AP": 0, "AP50": 0, "voc07": 0, "voc10": 0, "boxes": 1}
    nothing = {"AP": -1, "AP50": -1, "voc07": None, "voc10": None, "boxes": 0}
    assert document["per_class"]["difficult only"] == document["per_class"]["absent"] == nothing
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_table(metrics) -> None:
    lines = metrics.table().splitlines()
    assert lines[0].split() == ["class", "boxes", "AP", "AP50", "VOC07", "VOC10"]
    assert lines[2].split() == ["cat", "2", "50.5", "50.5", "54.5", "50.0"]
    assert lines[5].split() == ["absent", "0", "-", "-", "-", "-"]
    assert lines[7].split() == ["all", "(mean)", "3", "25.2", "25.2", "27.3", "25.0"]
    assert all(name in metrics.table() for name in COCO)
    assert len({len(line) for line in lines[:8]}) == 1


def test_curves(metrics) -> None:
    cat = metrics.voc.classes[0]
    np.testing.assert_array_equal(cat.recall, [0.5])
    np.testing.assert_array_equal(cat.precision, [1])
    np.testing.assert_array_equal(cat.scores, [0.9])
    assert metrics.coco.precision.shape == (10, 101, 4)


def test_nothing_to_find(make_dataset, make_found) -> None:
    metrics = evaluate(make_dataset([[], []]), [make_found(), make_found([(0, 0.5, 1, 1, 9, 9)])])
    document = metrics.to_json()
    assert set(document["coco"].values()) == {-1}
    assert document["voc07"]["mAP"] is document["voc10"]["mAP"] is None
    assert "-" in metrics.table()


def test_a_crowd_of_coco_is_difficult_for_voc(coco_dataset, coco_found) -> None:
    content = {
        "images": [{"id": 5}],
        "categories": [{"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 2, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 1},
            {"id": 2, "image_id": 5, "category_id": 2, "bbox": [100, 100, 50, 50], "area": 2500, "iscrowd": 0},
        ],
    }
    results = [
        {"image_id": 5, "category_id": 2, "bbox": [0, 0, 50, 50], "score": 0.9},
        {"image_id": 5, "category_id": 2, "bbox": [100, 100, 50, 50], "score": 0.8},
    ]
    dataset = coco_dataset(content)
    document = evaluate(dataset, coco_found(dataset, results)).to_json()
    assert document["voc10"]["mAP"] == 1
    assert document["per_class"]["cat"]["boxes"] == 1


def test_what_does_not_fit_is_refused(make_dataset, make_found) -> None:
    dataset = make_dataset([[(0, 1, 1, 9, 9)], []])
    with pytest.raises(UserError, match="2 images but detections for 1"):
        evaluate(dataset, [make_found()])
    with pytest.raises(UserError, match=r"'000001'.* label 1, but the dataset has 1 classes"):
        evaluate(dataset, [make_found(), make_found([(1, 0.5, 1, 1, 9, 9)])])
    with pytest.raises(UserError, match=r"'000000'.* not finite"):
        evaluate(dataset, [make_found([(0, float("nan"), 1, 1, 9, 9)]), make_found()])
    with pytest.raises(UserError, match=r"'000000'.* not finite"):
        evaluate(dataset, [make_found([(0, 0.5, 1, 1, float("inf"), 9)]), make_found()])


def test_truth_that_is_missing_or_not_finite_is_refused(make_dataset, make_found) -> None:
    dataset = make_dataset([[(0, 1, 1, 9, 9)], []])
    without = replace(dataset, records=(dataset.records[0], replace(dataset.records[1], annotated=False)))
    with pytest.raises(UserError, match=r"1 of 2 images of split 'val' have no annotation \(000001\)"):
        evaluate(without, [make_found(), make_found()])
    broken = make_dataset([[(0, 1, 1, float("nan"), 9)]])
    broken = replace(broken, records=(replace(broken.records[0], annotation=Path("Annotations/000000.xml")),))
    with pytest.raises(UserError, match=r"Annotations.000000.xml: a ground-truth box is not finite"):
        evaluate(broken, [make_found()])


def test_detections_of_other_types_are_taken(make_dataset) -> None:
    dataset = make_dataset([[(0, 10, 10, 90, 90)]])
    found = ImageDetections(
        np.array([[10, 10, 90, 90]], np.float32), np.array([0.5], np.float32), np.array([0], np.int32)
    )
    assert evaluate(dataset, [found]).to_json()["voc10"]["mAP"] == 1
