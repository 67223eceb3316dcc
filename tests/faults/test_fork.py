"""A process that is forked after an evaluation or a prediction computes too, and gives the same numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faults.forking import in_child

from singleshot.errors import UserError
from singleshot.evaluation import apart
from singleshot.evaluation.coco import coco_metrics
from singleshot.stream import Frame, read_ahead

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture
def measure() -> Callable[[], list[Any]]:
    """The numbers of some shaken boxes in 30 images, as written with all their digits."""
    from pathlib import Path

    from singleshot.data.dataset import Dataset, ImageRecord
    from singleshot.evaluation.detections import ImageDetections

    random = np.random.default_rng(0)
    records, found = [], []
    for i in range(30):
        corner = random.random((5, 2)) * 200
        boxes = np.concatenate([corner, corner + 20 + random.random((5, 2)) * 80], 1)
        labels, none = random.integers(0, 3, 5), np.zeros(5, bool)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        path = Path(f"{i}.jpg")
        truth = {"boxes": boxes, "labels": labels, "difficult": none, "crowd": none, "truncated": none, "areas": areas}
        records.append(ImageRecord(path=path, name=path.name, id=path.stem, size=(300, 300), **truth))
        found.append(ImageDetections(boxes + random.normal(0, 5, boxes.shape), random.random(5), labels))
    dataset = Dataset(Path("made"), "voc", "val", ("a", "b", "c"), (1, 2, 3), tuple(records))

    def numbers() -> list[Any]:
        metrics = coco_metrics(dataset, found)
        return [metrics.numbers, metrics.AP, metrics.precision.tolist(), metrics.scores.tolist()]

    return numbers


def test_an_evaluation_after_a_fork(measure: Callable[[], list[Any]]) -> None:
    here = json.loads(json.dumps(measure()))
    assert 0.1 < here[0]["AP"] < 0.9
    assert in_child(measure) == here
    assert in_child(lambda: in_child(measure)) == here
    assert measure()[0] == here[0]


@pytest.mark.parametrize(("python", "said"), [("/no/such/python", "can be started"), ("/bin/false", "exit code 1")])
def test_where_no_process_can_be_started(
    measure: Callable[[], list[Any]], python: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure()
    monkeypatch.setattr(apart.sys, "executable", python)
    answer = in_child(measure)
    assert answer.startswith("UserError: this process was forked from one that had evaluated")
    assert said in answer
    assert answer.endswith("start method 'spawn'")


def test_a_prediction_after_a_fork(tiny_model) -> None:
    import singleshot

    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        many = torch.rand(300, 300)
        detector = singleshot.load(tiny_model)

        def scores() -> list[float]:
            assert (many @ many).add(1).shape == many.shape
            torch.nn.init.normal_(torch.empty(300, 300))
            return [round(score, 4) for score in detector.predict(image).scores_array.tolist()]

        here = scores()
        assert in_child(scores) == here
        assert in_child(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_iteration_that_is_continued_after_a_fork() -> None:
    frames = read_ahead(range(30), lambda number: Frame(np.full((3, 1, 1), number, np.uint8), number), workers=2)
    assert next(frames).source == 0
    assert in_child(lambda: next(frames).source).startswith(f"{UserError.__name__}: this iteration was begun in")
    assert [frame.source for frame in frames] == list(range(1, 30))
