"""singleshot.backbones.timm, with a stand-in for the library: it is an optional dependency."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from singleshot import backbones
from singleshot.errors import UserError


class FeatureMaps(nn.Module):
    """What timm's create_model(features_only=True) returns, in small."""

    def __init__(self, out_indices: list[int] | None = None, output_fmt: str = "NCHW") -> None:
        super().__init__()
        self.indices = [0, 1, 2, 3] if out_indices is None else out_indices
        self.output_fmt = output_fmt
        strides, channels = (4, 8, 16, 32), (4, 5, 6, 7)
        self.feature_info = SimpleNamespace(
            reduction=lambda: [strides[i] for i in self.indices], channels=lambda: [channels[i] for i in self.indices]
        )
        for i, width in enumerate(channels):
            before = channels[i - 1] if i else 3
            layers = nn.Sequential(nn.Conv2d(before, width, 3, 2 if i else 4, 1), nn.BatchNorm2d(width))
            self.add_module(f"stages_{i}", layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i in range(4):
            x = self.get_submodule(f"stages_{i}")(x)
            maps.append(x.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else x)
        return [maps[i] for i in self.indices]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    timm: Any = ModuleType("timm")
    timm.list_models = lambda: ["convnet", "convnet_last"]

    def create_model(name: str, *, features_only: bool, pretrained: bool, **options: Any) -> nn.Module:
        assert features_only
        assert not pretrained, "no downloads"
        return FeatureMaps(output_fmt="NHWC" if name.endswith("last") else "NCHW", **options)

    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


@pytest.mark.parametrize("name", ["convnet", "convnet_last"])
def test_maps_at_strides_8_16_32(library: ModuleType, name: str) -> None:
    backbone = backbones.build(f"timm/{name}")
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert backbone.strides == (8, 16, 32)
    assert [tuple(features.shape) for features in maps] == [(2, 5, 8, 8), (2, 6, 4, 4), (2, 7, 2, 2)]


def test_frozen_norms(library: ModuleType) -> None:
    backbone = backbones.build("timm/convnet", norm="frozen").train()
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    assert not any(part.training or part.weight.requires_grad for part in norms)
    with pytest.raises(UserError, match="norm"):
        backbones.build("timm/convnet", norm="other")


def test_weights_with_timms_own_names(library: ModuleType, tmp_path: Path) -> None:
    donor = FeatureMaps()
    weights = {key.replace("stages_", "stages.", 1): value for key, value in donor.state_dict().items()}
    torch.save({**weights, "head.fc.weight": torch.zeros(3, 3)}, tmp_path / "convnet.pth")
    backbone = backbones.build("timm/convnet", weights=tmp_path / "convnet.pth")
    assert all(torch.equal(value, backbone.state_dict()[f"model.{key}"]) for key, value in donor.state_dict().items())
    torch.save({"stages.0.0.weight": weights["stages.0.0.weight"]}, tmp_path / "part.pth")
    with pytest.raises(UserError, match="missing"):
        backbones.build("timm/convnet", weights=tmp_path / "part.pth")


def test_unknown_model(library: ModuleType) -> None:
    with pytest.raises(UserError, match=r"convnett.*did you mean convnet"):
        backbones.build("timm/convnett")


def test_absent_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"singleshot\[timm\]"):
        backbones.build("timm/resnet50")
