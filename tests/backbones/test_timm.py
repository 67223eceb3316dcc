"""singleshot.backbones.timm, with a stand-in for the library: it is an optional dependency."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import singleshot as ss
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


class Unpadded(nn.Module):
    """As Inception: no layer with a window of 3 pads, so 160 pixels become 18, 8 and 3 cells."""

    def __init__(self, *, by_function: bool, out_indices: list[int] | None = None) -> None:
        super().__init__()
        self.by_function = by_function
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        self.feature_info = SimpleNamespace(reduction=lambda: [8, 16, 32], channels=lambda: [4, 4, 4])
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3, 2))
        self.narrow = nn.Conv2d(4, 4, 3, 2)
        self.pool = nn.AvgPool2d(3, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        middle = self.narrow(fine)
        return [fine, middle, F.max_pool2d(middle, 3, 2) if self.by_function else self.pool(middle)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    timm: Any = ModuleType("timm")
    timm.list_models = lambda: ["convnet", "convnet_last", "inception", "inception_v3"]

    def create_model(name: str, *, features_only: bool, pretrained: bool, **options: Any) -> nn.Module:
        assert features_only
        assert not pretrained, "no downloads"
        if name.startswith("inception"):
            return Unpadded(by_function=name.endswith("v3"), **options)
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


def cells(backbone: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(features.shape[2:]) for features in backbone(torch.randn(1, 3, 320, 160))]


def test_maps_of_a_network_without_padding_get_whole_cells(library: ModuleType) -> None:
    padded = backbones.build("timm/inception")
    assert padded.pixels == ((0.5,) * 3, (0.5,) * 3, "rgb")  # as timm says it
    assert backbones.build("timm/convnet").pixels == "imagenet_rgb"
    bare = backbones.build("timm/inception", options={"padded": False})
    assert cells(padded) == [(40, 20), (20, 10), (10, 5)]
    assert cells(bare) == [(38, 18), (18, 8), (8, 3)]
    assert [part.padding for part in padded.modules() if isinstance(part, nn.Conv2d)] == [(0, 0), *[(1, 1)] * 3]


def test_a_network_that_cannot_be_padded_stays_as_it_is(library: ModuleType) -> None:
    """One of its pools is a function: the maps would fit neither the strides nor each other."""
    assert cells(backbones.build("timm/inception_v3")) == [(38, 18), (18, 8), (8, 3)]
    with pytest.raises(UserError, match="'inception_v3' cannot be padded"):
        backbones.build("timm/inception_v3", options={"padded": True})
    detector = ss.refinedet(num_classes=1, backbone="timm/inception_v3", channels=8)
    with pytest.raises(UserError, match=r"18x18 cells is followed by one of 8x8.*do not pad"):
        detector.anchors_for((320, 320))
    pyramid = ss.refinedet(num_classes=1, backbone="timm/inception_v3", channels=8, neck="fpn")
    assert pyramid.anchors_for((320, 320)).counts == tuple(3 * side**2 for side in (38, 18, 8, 4))


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
