"""singleshot.backbones.vgg."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from singleshot.backbones.vgg import VGG16, Tail
from singleshot.errors import UserError

# A trunk of VGG-16 with small fc6 and fc7: the full ones take seconds to draw.
LIGHT = Tail((3, 1, 1), (3, 6), 16, ("conv4_3", "fc7"), {"conv4_3": 20.0})


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def plain(network: VGG16, pixels: Tensor, stride: int, dilation: int) -> dict[str, Tensor]:
    """The paper's table of layers, one after the other."""
    weights = network.state_dict()
    maps, x, index = {}, pixels, 0
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for _ in range(depth):
            x = F.relu(F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1))
            index += 2
        maps[f"conv{block}"] = x
        if block < 5:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        index += 1
    x = F.max_pool2d(x, 3, 1, 1) if stride == 1 else F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = F.relu(F.conv2d(x, weights["fc6.0.weight"], weights["fc6.0.bias"], padding=dilation, dilation=dilation))
    maps["fc7"] = F.relu(F.conv2d(x, weights["fc7.0.weight"], weights["fc7.0.bias"]))
    return maps


def normalised(features: Tensor, scale: float) -> Tensor:
    return scale * features / features.square().sum(1, keepdim=True).add(1e-10).sqrt()


def test_parts_have_the_reference_sizes() -> None:
    with torch.device("meta"):
        network, batch_norm = VGG16(), VGG16(batch_norm=True)
    assert parameters(network.features) == 14_714_688
    assert parameters(network.fc6) == 4_719_616
    assert parameters(network.fc7) == 1_049_600
    assert parameters(network.scales) == 512
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # torchvision's vgg16
    assert (
        sorted({int(key.split(".")[1]) for key in network.state_dict() if key.startswith("features.")}) == convolutions
    )
    keys = [key for key in batch_norm.state_dict() if key.startswith("features.")]
    numbers = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]  # and vgg16_bn
    assert sorted({int(key.split(".")[1]) for key in keys}) == sorted([*numbers, *(n + 1 for n in numbers)])
    assert f"features.{numbers[-1] + 1}.running_var" in keys


def test_reduced_is_the_papers_table_of_layers() -> None:
    torch.manual_seed(0)
    network = VGG16(LIGHT).eval()
    pixels = torch.randn(1, 3, 75, 100)
    with torch.no_grad():
        first, last = network(pixels)
        maps = plain(network, pixels, 1, 6)
    assert first.shape[-2:] == (10, 13)  # 75 -> 38 -> 19 -> 10: every pool rounds up
    torch.testing.assert_close(first, normalised(maps["conv4"], 20))
    torch.testing.assert_close(last, maps["fc7"])


def test_refinedet_takes_conv5_3_and_subsamples() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        whole = VGG16("refinedet")
        sizes = [tuple(features.shape[1:]) for features in whole(torch.empty(1, 3, 320, 320))]
    assert sizes == [(512, 40, 40), (512, 20, 20), (1024, 10, 10)]
    assert whole.strides == (8, 16, 32)
    assert parameters(whole) == 14_714_688 + 4_719_616 + 1_049_600 + 2 * 512
    network = VGG16(Tail((2, 2, 0), (3, 3), 16, whole.sources, {"conv4_3": 10.0, "conv5_3": 8.0})).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        got, maps = network(pixels), plain(network, pixels, 2, 3)
    torch.testing.assert_close(got[0], normalised(maps["conv4"], 10))
    torch.testing.assert_close(got[1], normalised(maps["conv5"], 8))
    torch.testing.assert_close(got[2], maps["fc7"])


def test_full_keeps_the_classifiers_layers() -> None:
    with torch.device("meta"):
        network = VGG16("full")
        maps = network(torch.empty(1, 3, 300, 300))
    assert [tuple(features.shape[1:]) for features in maps] == [(512, 38, 38), (512, 19, 19), (4096, 10, 10)]
    assert network.fc6[0].weight.shape == (4096, 512, 7, 7)
    assert list(network.scales) == ["conv4_3"]


def test_sources_and_scales_are_choices() -> None:
    with torch.device("meta"):
        only = VGG16(sources=("fc7",))
        plain_scales = VGG16(l2_scales={})
    assert (only.channels, only.strides) == ((1024,), (16,))
    assert parameters(only.scales) == parameters(plain_scales.scales) == 0
    for sources in ((), ("conv4_3",), ("fc7", "conv4_3"), ("conv9", "fc7")):
        with pytest.raises(UserError, match="sources"):
            VGG16(LIGHT, sources=sources)
    with pytest.raises(UserError, match="reduced, full, refinedet"):
        VGG16("tiny")


def test_trunk_is_he_normal() -> None:
    torch.manual_seed(0)
    network = VGG16(LIGHT)
    weight = network.features[10].weight
    assert isinstance(weight, Tensor)
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert network.features[10].bias.eq(0).all()


def classifier() -> dict[str, Tensor]:
    """Layers of the full size that take no memory: values tell the input, biases the output."""
    return {
        "classifier.0.weight": torch.arange(25088.0).expand(4096, 25088),
        "classifier.0.bias": torch.arange(4096.0),
        "classifier.3.weight": torch.arange(4096.0).expand(4096, 4096),
        "classifier.3.bias": torch.arange(4096.0) + 0.5,
        "classifier.6.weight": torch.zeros(1000, 1),
    }


def test_classifier_is_subsampled() -> None:
    with torch.device("meta"):
        network = VGG16()
    got = network.adapt_weights(classifier())
    assert set(got) == {"fc6.0.weight", "fc6.0.bias", "fc7.0.weight", "fc7.0.bias"}
    assert got["fc6.0.weight"].shape == (1024, 512, 3, 3)
    assert got["fc6.0.weight"][5, 2].tolist() == [[98 + 7 * row + column for column in (0, 3, 6)] for row in (0, 3, 6)]
    assert got["fc6.0.bias"][:3].tolist() == [0, 4, 8]
    assert got["fc7.0.weight"].shape == (1024, 1024, 1, 1)
    assert got["fc7.0.weight"][7, :3, 0, 0].tolist() == [0, 4, 8]
    assert got["fc7.0.bias"][:2].tolist() == [0.5, 4.5]


def test_classifier_whole_and_with_batch_norm() -> None:
    with torch.device("meta"):
        full, batch_norm = VGG16("full"), VGG16(batch_norm=True)
    got = full.adapt_weights(classifier())
    assert got["fc6.0.weight"].shape == (4096, 512, 7, 7)
    assert got["fc6.0.weight"][9, 1, 2, 3] == 49 + 7 * 2 + 3
    got = batch_norm.adapt_weights(classifier())
    assert "fc6.0.bias" not in got
    assert got["fc6.1.bias"][:3].tolist() == [0, 4, 8]
    assert got["fc6.1.weight"].eq(1).all()
    assert got["fc6.1.running_var"].eq(1).all()


def test_classifier_that_is_not_vggs_is_refused() -> None:
    with torch.device("meta"):
        network = VGG16()
    with pytest.raises(UserError, match=r"classifier\.0.*\(10, 20\)"):
        network.adapt_weights({"classifier.0.weight": torch.zeros(10, 20), "classifier.0.bias": torch.zeros(10)})


def test_features_alone_warn() -> None:
    with torch.device("meta"):
        network = VGG16()
    broken = {"features.0.bias": torch.zeros(64), "classifier.0.weight": torch.full((1, 1), float("nan"))}
    with pytest.warns(UserWarning, match="fc6 and fc7"):
        assert list(network.adapt_weights(broken)) == ["features.0.bias"]


def test_numbered_layout() -> None:
    with torch.device("meta"):
        network = VGG16()
    own = {key: value for key, value in network.state_dict().items() if not key.startswith("scales.")}
    numbered = {
        key.replace("features.", "").replace("fc6.0.", "31.").replace("fc7.0.", "33."): value
        for key, value in own.items()
    }
    assert {"0.weight", "28.bias", "31.weight", "33.bias"} <= set(numbered)
    assert network.adapt_weights(numbered).keys() == own.keys()
