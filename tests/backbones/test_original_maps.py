"""Our networks against torchvision's and timm's own numbers: `benchmarks/backbone_maps.py` has written them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from singleshot.backbones import build

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "backbone_maps.py"
ORIGINALS: dict[str, Any] = json.loads(Path(__file__).with_name("original_maps.json").read_text(encoding="utf-8"))
QUICK = {"mobilenetv3_large reduced_tail", "resnet18d"}  # one of each kind of block; the others take a second each


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("backbone_maps", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ORIGINALS]
)
def test_maps_are_the_originals(script: ModuleType, name: str) -> None:
    """All names and shapes of tensors, and the values of the maps."""
    backbone, _, option = name.partition(" ")
    network = build(backbone, options={option: True} if option else None).eval()
    assert script.formula_(network.state_dict()) == ORIGINALS[name]["shapes"]
    with torch.no_grad():
        maps = network(script.pixels())
    assert tuple(features.shape[1] for features in maps) == network.channels
    for found, original in zip(script.values(maps), ORIGINALS[name]["maps"], strict=True):
        assert found["shape"] == original["shape"]
        assert found["size"] == pytest.approx(original["size"], rel=1e-4)
        assert found["values"] == pytest.approx(original["values"], rel=1e-4, abs=1e-4 * original["size"])
