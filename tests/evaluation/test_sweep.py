"""Metrics side by side: the document and the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from singleshot.evaluation.metrics import evaluate
from singleshot.evaluation.sweep import Sweep

Make = Callable[..., Any]

TABLES_3_AND_4 = ["AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APs", "APm", "APl"]


@pytest.fixture
def sweep(make_dataset: Make, make_found: Make) -> Sweep:
    """One object of 100 x 100 pixels, found with an IoU of 0.72 or not at all."""
    dataset = make_dataset([[(0, 0, 0, 100, 100)]])
    metrics = [evaluate(dataset, [make_found(rows)]) for rows in ([(0, 0.9, 0, 0, 100, 72)], [])]
    return Sweep("iou_alpha", (0.5, "product"), tuple(metrics))


def test_the_document(sweep: Sweep) -> None:
    document = sweep.to_json()
    assert document["sweep"] == "iou_alpha"
    first, second = document["results"]
    assert list(first) == ["iou_alpha", "coco", "voc07", "voc10", "per_class"]
    assert (first["iou_alpha"], second["iou_alpha"]) == (0.5, "product")
    assert set(TABLES_3_AND_4) < first["coco"].keys()
    assert [first["coco"][name] for name in ("AP50", "AP70", "AP75", "AP90")] == pytest.approx([1, 1, 0, 0])
    assert first["coco"]["AP"] == pytest.approx(0.5)  # 0.5, 0.55 .. 0.7 of 0.5 .. 0.95
    assert second["coco"]["AP"] == 0
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_table(sweep: Sweep) -> None:
    lines = sweep.table().splitlines()
    assert lines[0].split() == ["iou_alpha", *TABLES_3_AND_4]
    assert " ".join(lines[2].split()) == "0.5 * 50.0 100.0 100.0 100.0 0.0 0.0 0.0 - - 50.0"
    assert " ".join(lines[3].split()) == "product 0.0 0.0 0.0 0.0 0.0 0.0 0.0 - - 0.0"
    assert len({len(line) for line in lines[:4]}) == 1


def test_nothing_to_find(make_dataset: Make, make_found: Make) -> None:
    metrics = evaluate(make_dataset([[]]), [make_found()])
    assert "*" not in Sweep("nms", (0.5,), (metrics,)).table().splitlines()[2]
    assert Sweep("nms", (), ()).to_json() == {"sweep": "nms", "results": []}
