"""Score against IoU, what NMS loses, and the oracle, with predictions made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import singleshot
from singleshot.analysis.iou.measure import AWARE, PLAIN, TRUE, iou_analysis, oracle_iou
from singleshot.analysis.truth import best_overlaps, true_iou
from singleshot.data.dataset import ImageRecord
from singleshot.detectors.detector import Detector
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.metrics import evaluate

CELL, OTHER = [8.0, 8, 40, 40], [52.0, 30, 84, 62]  # the objects of every image of `tiny_voc`
SHIFTED = [14.0, 8, 46, 40]  # IoU with CELL: 26 / 38 = 0.684


@pytest.fixture
def detector(tiny_model: Path) -> Detector:
    return singleshot.load(tiny_model)


@pytest.fixture(scope="module")
def data(tiny_voc: Path) -> singleshot.Dataset:
    return singleshot.open_dataset(tiny_voc, split="val")


def say(detector: Detector, boxes: list[list[float]], classes: list[list[float]], iou: list[float] | None) -> None:
    """Let the network find these boxes (pixels of the image) with these probabilities (cell, other), and no more."""
    anchors = detector.anchors_for((64, 64)).boxes
    scaled = torch.tensor(boxes) * torch.tensor([64 / 96, 64 / 72]).repeat(2)
    deltas, logits = torch.zeros(len(anchors), 4), torch.tensor([-20.0, -20, 0]).repeat(len(anchors), 1)
    deltas[: len(boxes)] = detector.postprocess.coder.encode(scaled, anchors[: len(boxes)])
    p = torch.tensor(classes)
    logits[: len(boxes)] = torch.cat([p, 1 - p.sum(1, keepdim=True)], 1).log()
    predictions = {"class_logits": logits, "box_deltas": deltas}
    if iou is not None:
        predictions["iou_logits"] = torch.full((len(anchors), 1), -20.0)
        predictions["iou_logits"][: len(boxes), 0] = torch.tensor(iou).logit()

    def network(pixels: Tensor) -> dict[str, Tensor]:
        return {name: part.expand(len(pixels), -1, -1) for name, part in predictions.items()}

    detector.network = network  # type: ignore[method-assign]


def say_wrong_order(detector: Detector, *, head: bool = True) -> None:
    """The badly placed box of the cell is surer of its class than the well placed one; an IoU head knows better."""
    boxes, classes = [SHIFTED, CELL, OTHER], [[0.9, 0.001], [0.7, 0.001], [0.001, 0.8]]
    say(detector, boxes, classes, [0.3, 0.95, 0.95] if head else None)


def test_soft_suppression_loses_what_it_lowers_below_the_threshold(
    detector: Detector, data: singleshot.Dataset
) -> None:
    say_wrong_order(detector)
    detector.postprocess = replace(detector.postprocess, soft=0.3, threshold=0.3)  # type: ignore[type-var]
    plain, aware = iou_analysis(detector, data, batch_size=1).scores
    assert plain.reachable == aware.reachable == (4, 4, 4, 4, 4)
    assert plain.lost == (0, 0, 2, 2, 2)  # the exact box keeps 0.316 of 0.7
    assert aware.lost == (0, 0, 0, 0, 0)


def test_by_hand(detector: Detector, data: singleshot.Dataset) -> None:
    say_wrong_order(detector)
    found = iou_analysis(detector, data, oracle=True, batch_size=1)
    assert (found.images, found.objects) == (2, 4)
    plain, aware, true = found.scores
    assert [way.name for way in found.scores] == [PLAIN, AWARE, TRUE]
    assert [way.alpha for way in found.scores] == [None, 0.5, 0.5]
    # The shifted box suppresses the exact one; only the objects' best boxes of 0.7 and more are lost by it.
    assert plain.reachable == aware.reachable == true.reachable == (4, 4, 4, 4, 4)
    assert plain.lost == (0, 0, 2, 2, 2)
    assert aware.lost == true.lost == (0, 0, 0, 0, 0)
    # Two findings in each of two images (0.001 is below the threshold), 0.9 with 0.684 and 0.8 with 1: anticorrelated.
    assert sorted(plain.scores.tolist()) == pytest.approx([0.8, 0.8, 0.9, 0.9], abs=1e-4)
    assert sorted(plain.ious.tolist()) == pytest.approx([26 / 38, 26 / 38, 1, 1], abs=1e-4)
    assert plain.detections().pearson == pytest.approx(-1, abs=1e-4)
    assert plain.detections(0.7).count == 2
    assert sorted(true.scores.tolist()) == pytest.approx([math.sqrt(0.7)] * 2 + [math.sqrt(0.8)] * 2, abs=1e-3)
    # 0.684 passes at 0.5, 0.55, 0.6, 0.65 of ten thresholds, for one class of two.
    assert plain.metrics == pytest.approx(
        {"AP": 0.7, "AP50": 1, "AP60": 1, "AP70": 0.5, "AP75": 0.5, "AP80": 0.5, "AP90": 0.5}
    )
    assert set(true.metrics.values()) == {1.0}
    assert aware.metrics == true.metrics


def test_without_a_head_there_is_no_after(detector: Detector, data: singleshot.Dataset) -> None:
    say_wrong_order(detector, head=False)
    assert [way.name for way in iou_analysis(detector, data).scores] == [PLAIN]
    found = oracle_iou(detector, data)
    assert list(found) == [PLAIN, TRUE]
    assert found[PLAIN]["AP75"] == 0.5
    assert found[TRUE]["AP75"] == 1


def test_metrics_are_those_of_evaluate(detector: Detector, data: singleshot.Dataset) -> None:
    found = oracle_iou(detector, data)[PLAIN]
    expected = evaluate(data, detect_dataset(detector, data)).coco.numbers
    assert {name: found[name] for name in ("AP", "AP50", "AP75")} == {
        name: expected[name] for name in ("AP", "AP50", "AP75")
    }


@pytest.mark.parametrize("alpha", [1.0, 0.3, None])
def test_alpha(detector: Detector, data: singleshot.Dataset, alpha: float | None) -> None:
    say_wrong_order(detector)
    found = iou_analysis(detector, data, alpha=alpha)
    plain, aware = found.scores
    assert aware.alpha == alpha
    assert aware.lost[-1] == (2 if alpha == 1 else 0)
    if alpha == 1:  # the class score alone
        assert np.array_equal(aware.scores, plain.scores)


def test_positive_anchors_are_the_same_boxes_for_every_score(detector: Detector, data: singleshot.Dataset) -> None:
    found = iou_analysis(detector, data, oracle=True)
    plain, true = found.scores
    assert np.array_equal(plain.positive_ious, true.positive_ious)
    assert plain.positives().count == len(plain.positive_scores) > 0


def test_min_score(detector: Detector, data: singleshot.Dataset) -> None:
    say_wrong_order(detector)
    assert len(iou_analysis(detector, data, min_score=0.85).scores[0].scores) == 2
    assert iou_analysis(detector, data, min_score=0.0).scores[0].detections().count == 4
    none = iou_analysis(detector, data, min_score=0.99)
    assert none.scores[0].detections().count == 0
    assert math.isnan(none.to_json()["scores"][0]["detections"]["spearman"])


def test_no_detections_at_all(detector: Detector, data: singleshot.Dataset) -> None:
    say(detector, [CELL], [[1e-6, 1e-6]], None)
    found = iou_analysis(detector, data, oracle=True)
    for way in found.scores:
        assert way.detections().count == 0
        assert way.reachable == (0, 0, 0, 0, 0)
        assert way.metrics["AP"] == 0


def record_of(boxes: list[list[float]], labels: list[int], *, crowd: list[bool], difficult: list[bool]) -> ImageRecord:
    return ImageRecord(
        path=Path("x.jpg"),
        name="x",
        id=1,
        size=(100, 100),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        difficult=np.array(difficult, bool),
        crowd=np.array(crowd, bool),
        truncated=np.zeros(len(labels), bool),
        areas=np.ones(len(labels)),
    )


class TestBestOverlaps:
    def test_by_hand(self) -> None:
        record = record_of(
            [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 90, 90], [20, 0, 30, 10]],
            [0, 1, 0, 0],
            crowd=[False, False, True, False],
            difficult=[False, False, False, True],
        )
        found = {
            "boxes": torch.tensor(
                [[0.0, 0, 10, 5], [0, 0, 10, 10], [60, 60, 70, 70], [20, 0, 30, 9], [60, 60, 70, 70]]
            ),
            "labels": torch.tensor([0, 1, 0, 0, 1]),
        }
        best, counts, objects = best_overlaps(found, record)
        assert best.tolist() == [0.5, 1, 0, 0, 0]
        assert counts.tolist() == [True, True, False, False, True]  # in the crowd, on a difficult one; other class
        assert objects.tolist() == [0.5, 1]

    def test_empty(self) -> None:
        record = record_of([[0, 0, 10, 10]], [0], crowd=[False], difficult=[False])
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        best, counts, objects = best_overlaps(nothing, record)
        assert (best.shape, counts.shape, objects.tolist()) == ((0,), (0,), [0.0])
        one = {"boxes": torch.ones(1, 4), "labels": torch.zeros(1, dtype=torch.int64)}
        best, counts, objects = best_overlaps(one, record_of([], [], crowd=[], difficult=[]))
        assert (best.tolist(), counts.tolist(), objects.shape) == ([0.0], [True], (0,))


def test_true_iou(detector: Detector, data: singleshot.Dataset) -> None:
    # The second box reaches beyond the left border; what is inside of the image is the cell exactly, moved there.
    say(detector, [SHIFTED, [-32.0, 8, 32, 40], CELL], [[0.5, 0.1]] * 3, None)
    images = [torch.zeros(3, 72, 96, dtype=torch.uint8)] * 3
    record = data.records[0]
    border = replace(record, boxes=np.array([[0.0, 8, 32, 40], OTHER]))
    crowd = replace(record, crowd=np.array([True, False]))
    found = true_iou(detector, detector.raw(images), [record, border, crowd])
    assert found[0, :3].tolist() == pytest.approx([26 / 38, 24 / 40, 1], abs=1e-4)
    assert found[1, 1].item() == pytest.approx(1, abs=1e-4)
    assert found[2, 0].item() == 0  # a crowd region is no object
    nothing = replace(record, boxes=np.zeros((0, 4)), crowd=np.zeros(0, bool))
    assert not true_iou(detector, detector.raw(images[:1]), [nothing]).any()


def test_many_objects_are_compared_in_parts(detector: Detector, data: singleshot.Dataset) -> None:
    say(detector, [CELL], [[0.5, 0.1]], None)
    far = np.tile([70.0, 0, 90, 20], (150, 1))
    record = replace(data.records[0], boxes=np.concatenate([far, [CELL]]), crowd=np.zeros(151, bool))
    found = true_iou(detector, detector.raw([torch.zeros(3, 72, 96, dtype=torch.uint8)]), [record])
    assert found[0, 0].item() == pytest.approx(1, abs=1e-4)
