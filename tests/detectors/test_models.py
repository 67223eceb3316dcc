"""What `singleshot models` lists is measured on the network."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from exporting import assert_exports
from torch import nn

import singleshot
from singleshot.cli import models as models_of_the_command
from singleshot.detectors import Detector, ssd
from singleshot.detectors.models import count_flops, count_parameters
from singleshot.detectors.registry import VARIANTS

module = importlib.import_module("singleshot.detectors.models")  # the package's name is that of its function


@pytest.fixture(scope="module")
def measured() -> Iterator[None]:
    """Every network is built once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "models", functools.cache(module.models))
        yield


@pytest.mark.usefixtures("measured")
def test_rows() -> None:
    rows = {row["name"]: row for row in module.models()}
    assert json.loads(json.dumps(rows)) == rows
    first = rows["ssd300_vgg16"]
    assert list(first) == ["name", "builder", "arguments", "input", "parameters", "boxes", "gflops", "published"]
    assert (first["builder"], first["arguments"], first["input"]) == ("ssd", {}, [300, 300])
    assert (first["parameters"], first["boxes"]) == (26_285_486, 8_732)
    assert "77.2" in first["published"]
    second = rows["ssd512_vgg16"]
    assert (second["input"], second["parameters"], second["boxes"]) == ([512, 512], 27_188_676, 24_564)
    assert rows["ssd300_mobilenetv2"]["boxes"] == 8_732
    assert 60 < first["gflops"] < 66  # 31.4 billion multiply-adds by hand, two each
    assert 170 < second["gflops"] < 190


@pytest.mark.usefixtures("measured")
def test_the_command_prints_what_is_measured() -> None:
    """`singleshot models` builds no network. `python benchmarks/list_models.py` writes new numbers."""
    stored = json.loads(Path(models_of_the_command.__file__).with_name("models.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(module.stored_models()))
    assert [model["name"] for model in stored] == list(VARIANTS)


def by_hand(detector: Detector) -> int:
    """Two operations for each multiply-add of every convolution."""
    total = 0

    def count(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * layer.weight[0].numel()

    hooks = [part.register_forward_hook(count) for part in detector.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        detector.network(torch.empty(1, 3, *detector.image_size, device=detector.device))
    for hook in hooks:
        hook.remove()
    return total


def test_a_multiply_and_an_add_count_as_two() -> None:
    with torch.device("meta"):
        for backbone in ("vgg16", "mobilenetv2", "resnet18"):
            detector = ssd(num_classes=20, backbone=backbone).eval()
            assert count_flops(detector) == by_hand(detector)


def test_parameters_do_not_depend_on_what_is_frozen() -> None:
    with torch.device("meta"):
        free = ssd(num_classes=2, backbone="resnet18", image_size=96)
        frozen = ssd(num_classes=2, backbone="resnet18", image_size=96, norm="frozen", frozen_stages=2)
    assert count_parameters(free) == count_parameters(frozen)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_exports_with_a_free_batch(name: str) -> None:
    torch.manual_seed(0)
    detector = singleshot.create(name, num_classes=3).eval()
    for key, parameter in detector.named_parameters():
        if key.endswith("class_logits.bias"):
            torch.nn.init.zeros_(parameter)  # an untrained network with a prior would find nothing at all
    assert_exports(detector)
