"""Devices by name, on this machine and on others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import singleshot as ss
from singleshot.devices import find_device
from singleshot.errors import UserError


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "mps", "mps:0"])
def test_what_is_there_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, mps=True)
    assert find_device(name) == torch.device(name)
    assert find_device(torch.device(name)) == torch.device(name)


def test_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=1)
    assert find_device("auto") == torch.device("cuda")
    machine(monkeypatch, mps=True)
    assert find_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "cuda", "said"),
    [
        ("gpu", 1, "'gpu' is not known; expected cpu, cuda, cuda:N"),
        ("cuda:-1", 1, "is not known"),
        ("cuda:x", 1, "is not known"),
        ("", 1, "is not known"),
        ("xla", 1, "'xla' is not one that detectors run on"),
        ("cuda", 0, "'cuda': this machine, or this build of PyTorch, has no CUDA; take cpu"),
        ("cuda:1", 1, "'cuda:1': this machine has one CUDA device, cuda:0"),
        ("cuda:7", 4, "'cuda:7': this machine has 4 CUDA devices, cuda:0 to cuda:3"),
        ("mps", 1, "'mps': this machine, or this build of PyTorch, does not have it"),
    ],
)
def test_what_is_not_there_is_refused(name: str, cuda: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=cuda)
    with pytest.raises(UserError, match=said):
        find_device(name)


def test_loading_refuses_it_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(UserError, match="has no CUDA"):
        ss.load(tmp_path / "model.safetensors", device="cuda:1")
