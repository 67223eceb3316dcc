"""Mutated files of detections: COCO results and VOC's lists. Read and evaluated, or refused."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
from faults.annotations import HEIGHT, IMAGES, JSON_WORDS, WIDTH, coco
from faults.answers import answer
from faults.kinds import Case, Kind
from faults.trees import TEXTS, damage_text, damage_tree, to_json

from singleshot.data.dataset import Dataset
from singleshot.data.open import open_dataset
from singleshot.evaluation.detections import read_detections, save_detections
from singleshot.evaluation.metrics import evaluate

WORDS = (
    *TEXTS[:60],
    " ",
    "\n",
    "1 0.5 1 2 3 4\n",
    "1 0.5 1 2 3\n",
    "1 0.5 1 2 3 4 5\n",
    "9 0.5 1 2 3 4\n",
    "\t",
    "1e400",
)


def _entries() -> list[dict[str, Any]]:
    return [
        {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9 - 0.05 * row}
        for row, entry in enumerate(coco()["annotations"])
    ]


def _lines() -> str:
    lines = []
    for row, entry in enumerate(_entries()):
        x, y, w, h = entry["bbox"]
        lines.append(f"{entry['image_id']} {0.9 - 0.05 * row:.6f} {x} {y} {x + w} {y + h}\n")
    return "".join(lines)


def make(rng: np.random.Generator, number: int) -> Case:
    """Three in four are COCO results."""
    chance = random.Random(int(rng.integers(2**62)))
    if chance.random() < 0.25:
        what, content = damage_text(chance, _lines(), WORDS)
        return Case(f"voc: {what}", content, name="comp4_det_test_cell.txt")
    if chance.random() < 0.7:
        what, tree, _ = damage_tree(chance, _entries())
        content = to_json(tree).encode("utf-8", "surrogatepass")
    else:
        what, content = damage_text(chance, json.dumps(_entries()), JSON_WORDS)
    return Case(f"coco: {what}", content, name="detections.json")


def prepare(folder: Path) -> Dataset:
    """The dataset that the detections are of."""
    logging.getLogger("singleshot").setLevel(logging.ERROR)
    path = folder / "instances.json"
    path.write_text(json.dumps(coco()))
    dataset = open_dataset(path)
    assert len(dataset) == IMAGES
    return dataset


def check(case: Case, shared: Dataset, folder: Path) -> None:
    """Read, evaluate, write and read again."""
    path = folder / case.name
    path.write_bytes(case.content)
    given = path if path.suffix == ".json" else folder
    found = answer(lambda: read_detections(given, shared), names=str(folder))
    if found is None:
        return
    for one in found:
        assert len(one.boxes) == len(one.scores) == len(one.labels)
        assert np.isfinite(one.boxes).all(), one.boxes
        assert np.isfinite(one.scores).all(), one.scores
        assert ((one.labels >= 0) & (one.labels < len(shared.class_names))).all()
        assert (one.boxes[:, 2:] >= one.boxes[:, :2]).all(), one.boxes
        assert np.abs(one.boxes).max(initial=0) <= 4e9 + WIDTH + HEIGHT
    metrics = evaluate(shared, found)
    text = json.dumps(metrics.to_json(), allow_nan=False)
    save_detections(folder / "again", shared, found)
    again = evaluate(shared, read_detections(folder / "again" / "detections.json", shared))
    assert json.dumps(again.to_json()["coco"]) == json.dumps(json.loads(text)["coco"]), (
        "another result from its own file"
    )


KIND = Kind(
    "files of detections with one thing changed are read, evaluated and written again, or refused with a message",
    make,
    check,
    cases=4_000,
    fast=40,
    prepare=prepare,
    seconds=20,
    memory=300,
)
