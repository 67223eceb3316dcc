"""singleshot.backbones.resnet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.backbones.resnet import DESIGNS, ResNet
from singleshot.errors import UserError


def plain_resnet50(weights: dict[str, Tensor], x: Tensor, groups: int = 1, *, caffe: bool = False) -> list[Tensor]:
    """Table 1 of the paper from a state dict with torchvision's names, in evaluation mode."""

    def convolve(name: str, norm: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        statistics = (weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics)

    x = F.relu(convolve("conv1", "bn1", x, 2))
    if caffe:  # windows of the map itself, and what is left at the bottom and right is a window too
        x = F.max_pool2d(F.pad(x, (0, 2 - x.shape[-1] % 2, 0, 2 - x.shape[-2] % 2), value=-torch.inf), 3, 2)
    else:
        x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for layer, depth in enumerate((3, 4, 6, 3), 1):
        for number in range(depth):
            name, stride = f"layer{layer}.{number}", 2 if layer > 1 and number == 0 else 1
            y = F.relu(convolve(f"{name}.conv1", f"{name}.bn1", x, stride if caffe else 1))
            y = F.relu(convolve(f"{name}.conv2", f"{name}.bn2", y, 1 if caffe else stride, groups))
            y = convolve(f"{name}.conv3", f"{name}.bn3", y)
            shortcut = convolve(f"{name}.downsample.0", f"{name}.downsample.1", x, stride) if number == 0 else x
            x = F.relu(y + shortcut)
        maps.append(x)
    return maps


@pytest.mark.parametrize(
    ("name", "groups", "caffe"),
    [("resnet50", 1, False), ("resnext50_32x4d", 32, False), ("resnet50", 1, True)],
)
def test_equals_the_papers_table(name: str, groups: int, caffe: bool) -> None:
    torch.manual_seed(0)
    pool = "ceil" if caffe else "padded"
    network = ResNet(name, sources=(2, 3, 4, 5), stride_first=caffe, pool=pool).eval()
    for key, value in network.state_dict().items():
        if "running" in key:
            value.uniform_(0.5, 1.5)
    pixels = torch.randn(1, 3, 45, 64)
    with torch.no_grad():
        got, expected = network(pixels), plain_resnet50(dict(network.state_dict()), pixels, groups, caffe=caffe)
    assert network.strides == (4, 8, 16, 32)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_a_stride_in_the_first_convolution_needs_a_bottleneck() -> None:
    with pytest.raises(UserError, match=r"stride_first.*bottlenecks, such as resnet50"):
        ResNet("resnet18", stride_first=True)


def test_width_of_resnext() -> None:
    with torch.device("meta"):
        wide = ResNet("resnext101_32x8d").get_submodule("layer1.0.conv2")
    assert wide.weight.shape == (256, 8, 3, 3)


def test_stages_behind_the_last_source_are_not_built() -> None:
    with torch.device("meta"):
        network = ResNet("resnet18", sources=(3, 4))
    assert not hasattr(network, "layer4")
    assert "layer4." in network.ignored_weights
    assert (network.channels, network.strides) == ((128, 256), (8, 16))
    assert len(network.stages()) == 4


@pytest.mark.parametrize("sources", [(), (4, 3), (1, 2), (6,)])
def test_sources_must_be_stages(sources: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="sources"):
        ResNet("resnet18", sources=sources)


def test_unknown_design() -> None:
    with pytest.raises(UserError, match="resnet99"):
        ResNet("resnet99")
    assert len(DESIGNS) == 12
