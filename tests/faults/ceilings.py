"""Too little memory, at any point of what the program does: a result, or a message; afterwards it works as before."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from faults.annotations import coco
from faults.kinds import Case, Kind
from PIL import Image

from singleshot.cli.explain import explain
from singleshot.data.images import read_image
from singleshot.data.open import open_dataset
from singleshot.detectors import Detector, ssd
from singleshot.weights.checkpoint import load, save

DOINGS = ("read a photograph", "read a deep image", "predict", "predict a batch", "open a dataset", "load weights")


class Good(NamedTuple):
    """What is done, and what came of it with enough memory."""

    do: dict[str, Callable[[], bytes]]
    right: dict[str, bytes]


def make(rng: np.random.Generator, number: int) -> Case:
    """Between nothing and more than enough above what the process has."""
    chance = random.Random(int(rng.integers(2**62)))
    doing, megabytes = DOINGS[number % len(DOINGS)], round(chance.uniform(0, 12) ** 2, 1)
    return Case(f"{doing} with {megabytes} MB", plan=(doing, megabytes))


def prepare(folder: Path) -> Good:
    """Files of some megabytes, and one run of everything."""
    rows = np.add.outer(np.arange(3_000), np.arange(4_000))
    Image.fromarray(np.stack([rows % 251] * 3, 2).astype(np.uint8)).save(folder / "photo.jpg")
    Image.fromarray((rows % 60_000).astype(np.uint16)).save(folder / "deep.png")
    tree = coco()
    tree["annotations"] = [tree["annotations"][k % 8] | {"id": k} for k in range(1, 20_000)]
    (folder / "instances.json").write_text(json.dumps(tree))
    torch.manual_seed(0)
    detector = ssd(num_classes=2, backbone="mobilenetv2", image_size=160)
    save(detector, folder / "model.safetensors")
    detector.eval()
    pictures = [np.full((400, 600, 3), k * 30, np.uint8) for k in range(4)]
    do: dict[str, Callable[[], bytes]] = {
        "read a photograph": lambda: read_image(folder / "photo.jpg").tobytes(),
        "read a deep image": lambda: read_image(folder / "deep.png").tobytes(),
        "predict": lambda: _found(detector, pictures[:1]),
        "predict a batch": lambda: _found(detector, pictures),
        "open a dataset": lambda: b"".join(
            record.boxes.tobytes() for record in open_dataset(folder / "instances.json").records
        ),
        "load weights": lambda: b"".join(
            value.numpy().tobytes() for value in load(folder / "model.safetensors").state_dict().values()
        ),
    }
    return Good(do, {name: function() for name, function in do.items()})


def _found(detector: Detector, pictures: list[np.ndarray]) -> bytes:
    return b"".join(found.scores.numpy().tobytes() for found in detector.predict(pictures))


def check(case: Case, shared: Good, folder: Path) -> None:
    """Do it under a ceiling, and once more without."""
    doing, megabytes = case.plan
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    said: str | None = ""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (held + int(megabytes * 2**20), before[1]))
        got = shared.do[doing]()
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_AS, before)
        got, said = shared.right[doing], explain(error)
        if said is None:
            raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not said or "memory" in said, said
    assert got == shared.right[doing], "another result"
    assert shared.do[doing]() == shared.right[doing], "another result after it was short of memory"


KIND = Kind(
    "images, predictions, datasets and weights with too little memory: a result or a message, and no harm afterwards",
    make,
    check,
    cases=300,
    fast=3,
    prepare=prepare,
    seconds=30,
    memory=600,
)
