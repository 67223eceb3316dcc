"""singleshot.backbones.efficientnet, and what it shares with MobileNetV3."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from singleshot.backbones import EfficientNet, MobileNetV3, build
from singleshot.backbones.efficientnet import STAGES
from singleshot.backbones.inverted import InvertedBlock
from singleshot.errors import UserError
from singleshot.installed_weights import PACKAGES, installed_weights
from singleshot.layers import BatchNorm2d

# The packages' scalings: channels of each stage, blocks of each stage.
LITES = {
    "efficientnet_lite0": ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
    "efficientnet_lite2": ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
}


def package_file(channels: tuple[int, ...], blocks: tuple[int, ...]) -> dict[str, Tensor]:
    """Random weights with the names and shapes of a package's file, from the published tables."""
    weights: dict[str, Tensor] = {}

    def add(layer: str, norm: str, *shape: int) -> None:
        weights[f"{layer}.weight"] = torch.randn(shape) * (2 / math.prod(shape[1:])) ** 0.5
        for entry in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{entry}"] = torch.rand(shape[0]) + (0.5 if entry in ("weight", "running_var") else -0.5)
        weights[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    inputs, number = 32, 0
    for (expansion, kernel, _, _, _), outputs, depth in zip(STAGES, channels, blocks, strict=True):
        for _ in range(depth):
            wide, name = inputs * expansion, f"_blocks.{number}."
            if expansion != 1:
                add(f"{name}_expand_conv", f"{name}_bn0", wide, inputs, 1, 1)
            add(f"{name}_depthwise_conv", f"{name}_bn1", wide, 1, kernel, kernel)
            add(f"{name}_project_conv", f"{name}_bn2", outputs, wide, 1, 1)
            inputs, number = outputs, number + 1
    add("_conv_head", "_bn1", 1280, inputs, 1, 1)
    return weights | {"_fc.weight": torch.randn(1000, 1280) / 36, "_fc.bias": torch.randn(1000)}


def plain(weights: dict[str, Tensor], pixels: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    """The published network, straight from a package's names: the expansions at strides 8 and 16, and the last map."""

    def convolved(name: str, features: Tensor, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        zeros: list[int] = []
        for size, kernel in ((features.shape[3], weight.shape[3]), (features.shape[2], weight.shape[2])):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)  # TensorFlow's SAME
            zeros += [total // 2, total - total // 2]
        return F.conv2d(F.pad(features, zeros), weight, stride=stride, groups=features.shape[1] // weight.shape[1])

    def normed(name: str, features: Tensor) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{name}.{entry}"][:, None, None] for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return (features - mean) / (variance + 1e-3).sqrt() * scale + shift

    features = normed("_bn0", convolved("_conv_stem", pixels, 2)).clamp(0, 6)
    maps, number = [], 0
    for stage, depth in enumerate(blocks):
        for place in range(depth):
            name, output, stride = f"_blocks.{number}.", features, STAGES[stage][2] if place == 0 else 1
            if stage:
                output = normed(f"{name}_bn0", convolved(f"{name}_expand_conv", output)).clamp(0, 6)
            if stage in (3, 5) and place == 0:
                maps.append(output)
            output = normed(f"{name}_bn1", convolved(f"{name}_depthwise_conv", output, stride)).clamp(0, 6)
            output = normed(f"{name}_bn2", convolved(f"{name}_project_conv", output))
            features = features + output if place else output
            number += 1
    return [*maps, normed("_bn1", convolved("_conv_head", features)).clamp(0, 6)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", pytest.param("efficientnet_lite2", marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_package_gives_the_published_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    channels, blocks = LITES[name]
    weights = package_file(channels, blocks)
    torch.save(weights, tmp_path / "lite.pth")
    network = build(name, weights=tmp_path / "lite.pth").eval().double()
    pixels = torch.rand(1, 3, 70, 64, dtype=torch.float64) * 2 - 1  # odd and even maps, on which the padding differs
    exact = {key: value.double() for key, value in weights.items()}
    for found, expected in zip(network(pixels), plain(exact, pixels, blocks), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    del weights["_blocks.0._bn1.bias"]
    torch.save(weights, tmp_path / "lite.pth")
    with pytest.raises(UserError, match=r"1 missing.*features\.1\.0\.block\.0\.1\.bias"):
        build(name, weights=tmp_path / "lite.pth")


def picture(path: Path, side: int) -> Tensor:
    """The middle square of a picture, as the Lites take it."""
    with Image.open(path) as image:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = image.convert("RGB").resize(
            (side, side), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge)
        )
    return (torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None].float() - 127) / 128


@pytest.mark.parametrize(
    ("name", "side"),
    [("efficientnet_lite0", 224), pytest.param("efficientnet_lite2", 260, marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_the_packages_weights_classify(name: str, side: int, shared: Path) -> None:
    path = installed_weights(name)
    if path is None:
        pytest.skip(f"the package {PACKAGES[name]} is not installed")
    weights = torch.load(path, weights_only=True)
    network = build(name, weights=path).eval()
    photos = shared / "images" / "coral"
    right = {"cat_720p.jpg": {281, 282, 285}, "hot_dog.jpg": {934}, "parrot.jpg": {88}}
    for photo, classes in right.items():
        pixels = picture(photos / photo, side)
        found, expected = (
            maps[-1].mean((2, 3)) @ weights["_fc.weight"].T + weights["_fc.bias"]
            for maps in (network(pixels), plain(weights, pixels, LITES[name][1]))
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert classes & set(found[0].topk(2).indices.tolist())


def test_stages_and_what_is_frozen() -> None:
    network = EfficientNet(frozen_stages=2, norm="eval").train()
    assert sum(len(stage) for stage in network.stages()) == len(network.layers()) == 18
    assert [len(stage) for stage in network.stages()] == [2, 2, 2, 6, 6]
    assert not any(value.requires_grad for part in network.features[:3] for value in part.parameters())
    assert all(value.requires_grad for part in network.features[3:] for value in part.parameters())
    norms = [part for part in network.modules() if isinstance(part, BatchNorm2d)]
    assert not any(part.training for part in norms)
    assert {part.eps for part in norms} == {1e-3}


@torch.no_grad()
def test_the_narrow_maps_are_the_outputs_of_the_blocks_before() -> None:
    torch.manual_seed(0)
    wide, narrow = MobileNetV3().eval(), MobileNetV3(expanded=False).eval()
    narrow.load_state_dict(wide.state_dict())
    assert (wide.channels, narrow.channels) == ((240, 672, 960), (40, 112, 960))
    pixels = torch.randn(1, 3, 64, 96)
    expanded, outputs = wide(pixels), narrow(pixels)
    layers = wide.layers()
    for index, got, plainly in ((7, expanded[0], outputs[0]), (13, expanded[1], outputs[1])):
        torch.testing.assert_close(plainly, wide.features[:index](pixels))
        block = layers[index]
        assert isinstance(block, InvertedBlock)
        torch.testing.assert_close(got, block.block[0](plainly))
    torch.testing.assert_close(expanded[2], outputs[2])


def test_frozen_norms_change_nothing_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = MobileNetV3(reduced_tail=True).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plainly = network(pixels)
    network.fix(norm="eval")
    maps = network.train()(pixels)
    for found, expected in zip(maps, plainly, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    sum(features.mean() for features in maps).backward()
    assert all(value.grad is not None for value in network.parameters())


def test_unknown_scaling() -> None:
    with pytest.raises(UserError, match="EfficientNet 'b9'"):
        EfficientNet("b9")
    with pytest.raises(UserError, match="has no option 'padding'"):
        build("efficientnet_lite0", options={"padding": "same"})


def test_files_of_the_larger_networks_are_not_taken_by_the_packages_names(tmp_path: Path) -> None:
    """Other projects use them for weights that need TensorFlow's padding, which no shape shows."""
    torch.save(package_file(*LITES["efficientnet_lite0"]), tmp_path / "b0.pth")
    with pytest.raises(UserError, match="do not fit this EfficientNet"):
        build("efficientnet_b0", weights=tmp_path / "b0.pth")
