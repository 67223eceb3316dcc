"""Damaged weights files and states of runs: loaded and used, or refused; what a checksum covers is always refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from faults.answers import answer
from faults.kinds import Case, Kind
from faults.mutate_weights import DAMAGED, mutated

from singleshot.detectors import Detector, ssd
from singleshot.training.made_by import MadeBy
from singleshot.training.state import Progress, SavedState, pack_state
from singleshot.weights.checkpoint import load, read_metadata, read_spec, save


class Good(NamedTuple):
    """Good files, and what a state is restored into."""

    weights: bytes
    state: bytes
    detector: Detector
    optimizer: torch.optim.Optimizer


def _detector() -> Detector:
    torch.manual_seed(0)
    return ssd(num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=64)


def _optimizer(detector: Detector) -> torch.optim.Optimizer:
    names, parameters = zip(*detector.named_parameters(), strict=True)
    return torch.optim.AdamW([{"params": parameters, "names": names}])


def prepare(folder: Path) -> Good:
    """One small detector, and the state of a run after a step."""
    detector = _detector()
    save(detector, folder / "model.safetensors")
    optimizer = _optimizer(detector)
    for parameter in detector.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    progress = Progress(step=1, total=4, classes=["0", "1"], sums={"box": 1.0}, summed=1)
    state = pack_state(progress, MadeBy(), detector, optimizer, None, [{"cpu": torch.get_rng_state()}])
    other = _detector()
    return Good((folder / "model.safetensors").read_bytes(), state, other, _optimizer(other))


def make(rng: np.random.Generator, number: int) -> Case:
    """A seed for the change; the good file is only known where the case runs."""
    chance = int(rng.integers(2**62))
    of_a_run = bool(rng.random() < 0.3)
    return Case(f"{'state' if of_a_run else 'weights'}, changed by the seed {chance}", plan=(of_a_run, chance))


def check(case: Case, shared: Good, folder: Path) -> None:
    """Change the good file, and read it in every way."""
    of_a_run, seed = case.plan
    what, content = mutated(random.Random(seed), shared.state if of_a_run else shared.weights)
    path = folder / "file.safetensors"
    path.write_bytes(content)
    found: Any
    try:
        if of_a_run:
            found = answer(lambda: SavedState.read(path), names=str(path))
            if found is not None:
                answer(lambda: found.restore(shared.detector, shared.optimizer, None))
        else:
            for read in (read_metadata, read_spec):
                answer(lambda read=read: read(path), names=str(path))  # type: ignore[misc]
            found = answer(lambda: load(path), names=str(path))
            if found is not None and found.preprocess.layout([(40, 60)])[1][0] <= 512:
                answer(lambda: found.predict(np.zeros((40, 60, 3), np.uint8)))
        assert found is None or not what.startswith(DAMAGED), "damaged, and accepted"
    except BaseException as error:
        error.add_note(what)
        raise


KIND = Kind(
    "weights files and states of runs with one thing changed are loaded and used, or refused with a message",
    make,
    check,
    cases=2_000,
    fast=10,
    prepare=prepare,
    seconds=20,
    memory=400,
)
