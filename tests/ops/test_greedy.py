"""Suppression on the CPU: what is far apart is not compared, and the result is that of comparing all with all."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from singleshot.ops import greedy as module
from singleshot.ops.boxes import pairwise_iou
from singleshot.ops.greedy import greedy
from singleshot.ops.nms import nms

Numbers = NDArray[Any]
KINDS = ("grid", "spread", "crowds", "one place", "chain", "flat", "tiny", "huge", "broken")


def slow(boxes: Numbers, groups: Numbers, threshold: float) -> Numbers:
    """Take a box, drop all later ones of its group that overlap it more, and so on: all with all."""
    alive = np.ones(len(boxes), bool)
    every = torch.from_numpy(boxes)
    over = (pairwise_iou(every, every) > threshold).numpy() & (groups[:, None] == groups)
    for place in range(len(boxes)):
        if alive[place]:
            alive[place + 1 :] &= ~over[place, place + 1 :]
    return alive


def boxes_of(kind: str, number: int, rng: np.random.Generator) -> Numbers:
    low, size = rng.random((number, 2)) * [800, 600], 20 + rng.random((number, 2)) * 200
    match kind:
        case "grid" | "flat":  # equal overlaps, also equal to thresholds; flat: boxes without area among them
            low, size = rng.integers(0, 24, (number, 2)), rng.integers(kind == "grid", 9, (number, 2))
        case "crowds":
            centres = rng.random((5, 2)) * 500
            low, size = centres[rng.integers(0, 5, number)] + rng.normal(size=(number, 2)) * 5, size / 4
        case "one place":
            low, size = np.full((number, 2), 7.0), np.full((number, 2), 30.0)
        case "chain":
            low, size = np.arange(number)[:, None] * [1.0, 0.0], np.full((number, 2), 3.0)
    boxes = np.concatenate([low, low + size], 1).astype(np.float32)
    if kind == "tiny":
        boxes *= np.float32(1e-18)  # areas that float32 holds with few bits
    if kind == "huge":
        boxes[rng.random(number) < 0.5] *= np.float32(1e15)
        boxes[rng.random(number) < 0.1] *= np.float32(1e15)  # areas that are infinite
    if kind == "broken":
        wrong = rng.random(boxes.shape) < 0.05
        boxes[wrong] = rng.choice([np.nan, np.inf, -np.inf, -1.0], int(wrong.sum()))
    return boxes


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Any:
    """Few boxes must fill several chunks, tiles and runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_FIRST": 8, "_TILE": 3, "_RUN": 10, "_TABLE": 200, "_PAIRS": 400, "_ROUNDS": 2}.items():
            patch.setattr(module, name, value)
        yield


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    number=st.integers(0, 120),
    groups=st.sampled_from([1, 2, 7, 200]),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.5, 0.75, 1.0, 2.0]),
    seed=st.integers(0, 1000),
    double=st.booleans(),
    far=st.booleans(),
)
def test_equals_all_with_all(
    kind: str, number: int, groups: int, threshold: float, seed: int, double: bool, far: bool
) -> None:
    rng = np.random.default_rng(seed)
    boxes, own = boxes_of(kind, number, rng), rng.integers(0, groups, number)
    boxes = boxes.astype(np.float64) if double else boxes
    own = own * 10**15 - 3 if far else own
    expected = slow(boxes, own, threshold)
    assert np.array_equal(greedy(boxes, own, threshold), expected)
    first = greedy(boxes, own, threshold, 5)
    assert np.flatnonzero(first)[:5].tolist() == np.flatnonzero(expected)[:5].tolist()
    assert not (first & ~expected).any()


@pytest.mark.parametrize("kind", ["one place", "crowds", "chain"])
def test_crowds_take_bounded_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of 6,600 boxes are 22 million, of which no more are held than the limit says."""
    rng = np.random.default_rng(0)
    there = np.concatenate([boxes_of("spread", 600, rng), boxes_of(kind, 6_000, rng)])  # the crowd comes late
    for name, value in {"_FIRST": 512, "_TILE": 16, "_RUN": 2048, "_TABLE": 1 << 15, "_PAIRS": 1 << 17}.items():
        monkeypatch.setattr(module, name, value)
    tracemalloc.start()
    alive = greedy(there, np.zeros(len(there), np.int64), 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert alive.any()
    assert peak < 20e6


def test_many_boxes_of_many_classes_with_equal_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TABLE", 1 << 15)
    monkeypatch.setattr(module, "_FIRST", 512)
    monkeypatch.setattr(module, "_TILE", 16)
    monkeypatch.setattr(module, "_PAIRS", 1 << 22)
    rng = np.random.default_rng(0)
    boxes, labels = torch.from_numpy(boxes_of("spread", 3_000, rng)), torch.from_numpy(rng.integers(0, 40, 3_000))
    scores = torch.from_numpy(rng.integers(0, 50, 3_000)) / 50  # many are equal, and keep their order
    kept = nms(boxes, scores, labels, 0.5)
    order = scores.argsort(descending=True, stable=True)
    alive = slow(boxes[order].numpy(), labels[order].numpy(), 0.5)
    assert torch.equal(kept, order[torch.from_numpy(alive)])
