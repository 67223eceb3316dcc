"""The sizes of maps, asked from the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from singleshot import backbones
from singleshot.detectors import ssd
from singleshot.ops.shapes import ShapesOnly, map_sizes
from singleshot.weights.checkpoint import save


class Mixed(nn.Module):
    """Layers of all kinds, of which some keep the shape and some do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.SiLU(inplace=True), nn.MaxPool2d(2))
        self.second = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 3, 2), nn.GroupNorm(4, 8), nn.Hardswish(), nn.Dropout(), nn.GELU()
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        first = self.first(pixels)
        second = self.second(first).relu() + 1
        second = second.mean((2, 3), keepdim=True) + second  # the first is the smaller one
        second = second.mul(other=second.amax((0, 1))).sub(second[:, :1])
        return [first, second, nn.functional.interpolate(second, scale_factor=2)]


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "vgg16_bn", "mixed"])
def test_they_are_the_real_ones_and_the_network_is_left_alone(name: str) -> None:
    torch.manual_seed(0)
    network = (Mixed() if name == "mixed" else backbones.build(name)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for size in ((64, 64), (65, 97), (33, 120)):
        sizes = map_sizes(network, size)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert sizes == [tuple(features.shape[-2:]) for features in network.eval()(torch.zeros(1, 3, *size))]
        network.train()


class Names(TorchDispatchMode):
    """Which operators are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_what_keeps_the_shape_is_left_out(norm: str) -> None:
    network = backbones.build("mobilenetv2", norm=norm)
    with Names() as names:
        map_sizes(network, (64, 64))
    assert "aten::convolution" not in names.seen  # its shape is computed here
    assert not any(word in name for name in names.seen for word in ("norm", "hardtanh", "clamp", "rsqrt"))


@pytest.mark.parametrize("padding", [0, 1, (2, 3), "same"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_shape_of_a_convolution(padding: Any, groups: int) -> None:
    for stride, dilation, kernel in ((1, 1, 3), (1, 2, (3, 2)), (1, 1, 1)) if padding == "same" else (
        (2, 1, 3), ((2, 3), 2, (3, 2)), (1, (1, 3), 2)
    ):  # fmt: skip
        layer = torch.nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups)
        expected = layer(torch.zeros(2, 4, 17, 20)).shape
        with ShapesOnly():
            assert layer.to("meta")(torch.empty(2, 4, 17, 20, device="meta")).shape == expected
    layer = torch.nn.Conv2d(4, 6, 5, device="meta")
    for wrong in ((2, 3, 17, 20), (2, 4, 3, 20)):
        with ShapesOnly(), pytest.raises(RuntimeError):
            layer(torch.empty(wrong, device="meta"))


def test_loading_a_detector_and_detecting_load_no_compiler(tmp_path: Path) -> None:
    detector = ssd(num_classes=2, backbone="mobilenetv2", image_size=64)
    save(detector, tmp_path / "model.safetensors")
    words = (
        "import sys, numpy as np, singleshot as ss\n"
        "ss.load(sys.argv[1]).predict(np.zeros((50, 60, 3), np.uint8))\n"
        "print(any(name in sys.modules for name in ('torch._dynamo', 'sympy', 'matplotlib', 'hotcoco', 'accelerate')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", words, str(tmp_path / "model.safetensors")], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False"]
