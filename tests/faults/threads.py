"""One detector in many threads, with pictures of random sizes: each gets what it would get alone, bit for bit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults.kinds import Case, Kind
from torch import Tensor

from singleshot.detectors import Detector, iou_retinanet, refinedet, retinanet, ssd

SMALL: dict[str, Any] = {"num_classes": 2, "backbone": "mobilenetv2", "backbone_options": {"width": 0.25}}
FIXED: dict[str, Any] = {**SMALL, "image_size": 64}
FREE: dict[str, Any] = {**SMALL, "image_size": 64, "max_size": 128, "channels": 16, "tower_depth": 1}
FAMILIES = {"ssd": (ssd, FIXED), "refinedet": (refinedet, FIXED)}
FAMILIES |= {"retinanet": (retinanet, FREE), "iou_retinanet": (iou_retinanet, FREE)}


def fresh(family: str) -> Detector:
    """A detector that has predicted nothing yet; always the same weights."""
    builder, arguments = FAMILIES[family]
    torch.manual_seed(0)
    return builder(**arguments)


def make(rng: np.random.Generator, number: int) -> Case:
    family, threads = list(FAMILIES)[number % len(FAMILIES)], int(rng.integers(2, 13))
    sizes = rng.integers(20, 160, (threads, int(rng.integers(1, 4)), 2)).tolist()
    training = bool(rng.integers(2))
    what = f"{threads} threads predict with one {family}{' in training mode' * training}, images of {sizes}"
    return Case(what, plan=(family, training, sizes, int(rng.integers(1 << 30))))


def check(case: Case, shared: Any, folder: Path) -> None:
    family, training, sizes, seed = case.plan
    random = np.random.default_rng(seed)
    pictures = [
        [torch.from_numpy(random.integers(0, 256, (3, *size), np.uint8)) for size in of_thread] for of_thread in sizes
    ]
    alone, together = fresh(family).train(training), fresh(family).train(training)
    expected = [answers(alone, mine) for mine in pictures]
    barrier = threading.Barrier(len(pictures))

    def begun(mine: list[Tensor]) -> list[Tensor]:
        barrier.wait(timeout=60)
        return answers(together, mine)

    with ThreadPoolExecutor(len(pictures)) as pool:
        found = list(pool.map(begun, pictures))
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert all(map(torch.equal, one, other)), f"thread {number} found something else than it finds alone"
    assert all(module.training == training for module in together.modules()), "the mode has changed"
    for (name, one), other in zip(together.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other), f"{name} has changed"


def answers(detector: Detector, pictures: list[Tensor]) -> list[Tensor]:
    """The arrays of all predictions, one picture after another and then all at once."""
    found = [*(detector.predict(picture) for picture in pictures), *detector.predict(pictures)]
    return [tensor for one in found for tensor in (one.boxes, one.scores, one.labels)]


KIND = Kind("2 to 12 threads with a fresh detector of each family: bit-equal to one", make, check, cases=100, fast=1)
