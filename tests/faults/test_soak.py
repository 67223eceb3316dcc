"""A long run of predictions or of training steps takes no more memory and no more open files than a short one."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faults.forking import in_child
from PIL import Image

import singleshot
from singleshot.training.run import Run

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")

Sample = tuple[int, float, int]
"""How many were done, megabytes of memory, open files."""

ALLOWED = 6.0
"""Megabytes between the middle and the end of a run: what allocators move, and far below what an image a step is."""


def sample(done: int) -> Sample:
    """The memory and the open files of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return done, round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2), len(os.listdir("/proc/self/fd"))


def assert_flat(samples: list[Sample]) -> None:
    """After the first third nothing grows: the last quarter is compared with the second one, each by its median."""
    quarter = len(samples) // 4
    assert quarter >= 2
    early, late = (np.median(np.array(part), 0) for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
    told = [f"{memory:.1f} MB and {files:.0f} files" for _, memory, files in (early, late)]
    print(f"after {samples[-1][0]}: {' -> '.join(told)}")
    assert late[1] - early[1] < ALLOWED, samples
    assert late[2] <= early[2], samples


def predictions(model: Path, folder: Path, number: int) -> list[Sample]:
    """Half of them one by one, of arrays of many sizes; half over files, with threads that read and pictures drawn."""
    detector = singleshot.load(model)
    random = np.random.default_rng(0)
    samples = []
    for k in range(number // 4):
        for _ in range(2):
            size = (*random.integers(40, 120, 2), 3)
            detector.predict(random.integers(0, 256, size, np.uint8))
        choices = {"overwrite": k > 0, "workers": 2, "threshold": 0, "top_k": 5}
        found = singleshot.detect(detector, folder / "in", out=folder / "out", **choices)
        assert len(found) == 2
        samples.append(sample(4 * (k + 1)))
    return samples


def steps(data: Path, folder: Path, number: int) -> list[Sample]:
    """A training with validations."""
    from singleshot.training import due, train
    from singleshot.training.recipe import from_tree, override

    small = {"builder": "training.tiny_detector:tiny", "arguments": {}}
    real = {"builder": "ssd", "arguments": {"backbone": "mobilenetv2", "image_size": 64}}
    recipe = from_tree(
        {
            "name": "soak",
            **(small if number < 100 else real),
            "batch_size": 2,
            "data": {"workers": 0},
            "schedule": {"steps": number},
            "validation": {"times": 2 if number < 100 else 10},
            "log": {"every": 5},
        }
    )
    samples: list[Sample] = []
    train(override(recipe, {"schedule.steps": 2}), data=data, out=folder / "warm")  # with a validation: all is loaded
    asked, every = due.validation, max(2, number // 100)

    def counted(run: Run) -> bool:
        step = run.progress.step
        if step % every == 0 and (not samples or samples[-1][0] < step):
            samples.append(sample(step))
        return asked(run)

    due.validation = counted
    train(recipe, data=data, out=folder / "run")
    return samples


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with `in`, two images."""
    (tmp_path / "in").mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 256, (60 + k, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{k}.jpg")
    return tmp_path


def soak(function: Callable[[], list[Sample]]) -> None:
    """In a process of its own, whose memory is nobody else's."""

    def quickly() -> list[Sample]:
        gc.freeze()  # what is there already need not be looked through at each sample
        return function()

    answer = in_child(quickly, seconds=3600)
    assert isinstance(answer, list), answer
    assert_flat([tuple(one) for one in answer])  # type: ignore[misc]


@pytest.mark.parametrize("number", [32, pytest.param(2000, marks=pytest.mark.slow)])
def test_predictions(number: int, tiny_model: Path, photos: Path) -> None:
    soak(partial(predictions, tiny_model, photos, number))


@pytest.mark.parametrize("number", [16, pytest.param(500, marks=pytest.mark.slow)])
def test_training(number: int, tiny_voc: Path, tmp_path: Path) -> None:
    soak(partial(steps, tiny_voc, tmp_path, number))
