"""Damaged weights files: a message or a detector, and never a detector from what is known to be damaged."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from faults.mutate_weights import DAMAGED, joined, mutated, parts

from singleshot.detectors import ssd
from singleshot.errors import UserError
from singleshot.weights.checkpoint import load, read_metadata, read_spec, save


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    save(ssd(num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=64), path)
    return path.read_bytes()


def test_what_is_taken_apart_is_joined_again(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(joined(*parts(good)))
    load(tmp_path / "model.safetensors")


def test_a_message_or_a_detector(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for number in range(12):
        what, content = mutated(random.Random(number), good)
        assert mutated(random.Random(number), good)[1] == content
        path.write_bytes(content)
        for read in (load, read_metadata, read_spec):
            with suppress(UserError):
                read(path)
                assert read is not load or not what.startswith(DAMAGED), what
