"""singleshot.necks: extra levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from singleshot import backbones
from singleshot.backbones import Backbone
from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d, SqueezeExcitation
from singleshot.necks import (
    FPN,
    BottleneckBlocks,
    BottleneckExtra,
    Extra,
    ExtraLevels,
    TransferConnection,
    derived_extras,
    ssd300_extras,
    ssd512_extras,
)
from singleshot.ops.shapes import map_sizes


class Tiny(Backbone):
    """Two maps, at strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = (4, 6), (8, 16)
        self.first = nn.Conv2d(3, 4, 8, 8)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        first = self.first(pixels)
        return [first, self.second(first)]

    def stages(self) -> list[list[nn.Module]]:
        return [[self.first], [self.second]]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("size", "extras", "count", "sides"),
    [
        (300, ssd300_extras(), 2_459_520, [38, 19, 10, 5, 3, 1]),
        (512, ssd512_extras(), 3_016_960, [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_papers_extras(size: int, extras: tuple[Extra, ...], count: int, sides: list[int]) -> None:
    with torch.device("meta"):
        levels = ExtraLevels(backbones.build("vgg16"), extras)
    assert parameters(levels.extras) == count
    assert map_sizes(levels, (size, size)) == [(side, side) for side in sides]
    assert levels.channels == (512, 1024, 512, *[256] * (len(sides) - 3))
    assert levels.strides == tuple(8 * 2**level for level in range(len(sides)))


@pytest.mark.parametrize(
    ("map_size", "expected"),
    [
        ((19, 19), [(10, 10), (5, 5), (3, 3), (1, 1)]),
        ((32, 32), [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
        ((10, 10), [(5, 5), (3, 3), (1, 1)]),
        ((10, 7), [(5, 4), (3, 2), (2, 1), (1, 1)]),
        ((3, 3), [(1, 1)]),
        ((2, 2), [(1, 1)]),
        ((1, 9), [(1, 5), (1, 3), (1, 2), (1, 1)]),
        ((1, 1), []),
    ],
)
def test_derived_extras_end_at_one_cell(map_size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    extras = derived_extras(map_size, norm=True)
    sizes, features = [], torch.zeros(1, 1, *map_size)
    for extra in extras:
        features = nn.functional.conv2d(
            features, torch.zeros(1, 1, extra.kernel, extra.kernel), stride=extra.stride, padding=extra.padding
        )
        sizes.append(tuple(features.shape[-2:]))
        assert extra.norm == (True, features.shape[-2:] != (1, 1))
    assert sizes == expected


def test_derived_channels() -> None:
    extras = derived_extras((33, 33), channels=(512, 256, 128))
    assert [(extra.squeeze, extra.channels) for extra in extras] == [(256, 512), (128, 256), *[(64, 128)] * 3]
    assert not any(any(extra.norm) for extra in extras)
    with pytest.raises(UserError, match="channels"):
        derived_extras((10, 10), channels=())


def test_added_layers_are_uniform_by_fan_in() -> None:
    levels = ExtraLevels(Tiny(), derived_extras((4, 4), channels=(64,)))
    for layer in levels.extras.modules():
        if isinstance(layer, nn.Conv2d):
            bound = (3 / layer.weight[0].numel()) ** 0.5
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert layer.bias is not None
            assert layer.bias.eq(0).all()


def test_relu_follows_every_added_convolution() -> None:
    levels = ExtraLevels(Tiny(), ssd300_extras())
    kinds = [isinstance(part, nn.ReLU) for part in levels.extras.modules() if isinstance(part, nn.Conv2d | nn.ReLU)]
    assert kinds == [False, True] * 8


def test_outputs_drop_levels_and_build_nothing_unused() -> None:
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 128, 128)
    extras = derived_extras((8, 8), channels=(16, 12))
    everything = ExtraLevels(Tiny(), extras).eval()
    some = ExtraLevels(Tiny(), extras, outputs=(1, 3)).eval()
    assert some.channels == (6, 12)
    assert some.strides == (16, 64)
    some.load_state_dict(everything.state_dict(), strict=False)
    for got, expected in zip(some(pixels), [everything(pixels)[1], everything(pixels)[3]], strict=True):
        torch.testing.assert_close(got, expected)
    sum(features.sum() for features in some(pixels)).backward()
    assert all(parameter.grad is not None for parameter in some.parameters())
    assert len(ExtraLevels(Tiny(), extras, outputs=(0, 1)).extras) == 0


@pytest.mark.parametrize("outputs", [(), (1, 0), (0, 9), (0, 0), (-1,)])
def test_outputs_that_are_no_levels(outputs: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="levels"):
        ExtraLevels(Tiny(), derived_extras((8, 8)), outputs=outputs)


def test_training_with_one_image_and_batch_norm() -> None:
    torch.manual_seed(0)
    levels = ExtraLevels(Tiny(), derived_extras((4, 4), channels=(16,), norm=True)).train()
    maps = levels(torch.randn(1, 3, 64, 64))
    assert [tuple(features.shape[-2:]) for features in maps] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    sum(features.square().mean() for features in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in levels.parameters())
    assert sum(isinstance(part, BatchNorm2d) for part in levels.modules()) == 3


def test_compiles_whole_and_exports() -> None:
    torch.manual_seed(0)
    levels = ExtraLevels(Tiny(), derived_extras((4, 4), channels=(16,), norm=True)).eval()
    pixels = torch.randn(2, 3, 64, 64)
    expected = levels(pixels)
    compiled = torch.compile(levels, backend="eager", fullgraph=True)(pixels)
    exported = torch.export.export(levels, (pixels,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()(pixels)
    for a, b, c in zip(expected, compiled, exported, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)


# ------------------------------------------------------------------ feature pyramid
MAPS = [torch.randn(1, width, *side) for width, side in ((4, (13, 20)), (6, (7, 10)), (8, (4, 5)))]


def fpn(**options: Any) -> FPN:
    return FPN((4, 6, 8), (8, 16, 32), 16, **options)


def test_pyramid_has_two_levels_more_of_one_width() -> None:
    pyramid = fpn()
    assert pyramid.channels == (16,) * 5
    assert pyramid.strides == (8, 16, 32, 64, 128)
    assert [tuple(features.shape) for features in pyramid(MAPS)] == [
        (1, 16, 13, 20),
        (1, 16, 7, 10),
        (1, 16, 4, 5),
        (1, 16, 2, 3),
        (1, 16, 1, 2),
    ]


@pytest.mark.parametrize("p6", ["c5", "p5"])
@pytest.mark.parametrize("relu", [True, False])
def test_pyramid_equals_its_definition(p6: str, relu: bool) -> None:
    pyramid = fpn(p6=p6, relu_before_p7=relu)
    lateral, output = list(pyramid.lateral), list(pyramid.output)
    m5 = lateral[2](MAPS[2])
    m4 = lateral[1](MAPS[1]) + F.interpolate(m5, size=(7, 10))
    m3 = lateral[0](MAPS[0]) + F.interpolate(m4, size=(13, 20))
    p5 = output[2](m5)
    p6_map = pyramid.p6(MAPS[2] if p6 == "c5" else p5)
    p7 = pyramid.p7(p6_map.relu() if relu else p6_map)
    for found, expected in zip(pyramid(MAPS), [output[0](m3), output[1](m4), p5, p6_map, p7], strict=True):
        torch.testing.assert_close(found, expected)


def test_pyramid_of_equal_maps_upsamples_to_the_nearest() -> None:
    pyramid = fpn()
    for part in (*pyramid.lateral, *pyramid.output):
        nn.init.zeros_(part.get_parameter("weight"))
    nn.init.ones_(pyramid.lateral[2].get_parameter("bias"))
    for conv in pyramid.output:
        conv.get_parameter("weight").data[:, :, 1, 1] = torch.eye(16)
    assert all(bool((features == 1).all()) for features in pyramid(MAPS)[:3])


def test_unknown_source_of_p6() -> None:
    with pytest.raises(UserError, match="c5, p5"):
        fpn(p6="c4")


def test_pyramid_without_coarser_levels() -> None:
    pyramid = fpn(coarser=False)
    assert len(pyramid(MAPS)) == len(pyramid.channels) == len(pyramid.strides) == 3
    assert not hasattr(pyramid, "p6")


# ------------------------------------------------------------------ RefineDet's transfer connection blocks
EVEN = [torch.randn(2, width, side, side) for width, side in ((4, 16), (6, 8), (8, 4), (5, 2))]


def transfer(**options: Any) -> TransferConnection:
    torch.manual_seed(0)
    return TransferConnection((4, 6, 8, 5), (8, 16, 32, 64), 16, **options).eval()


@pytest.mark.parametrize("norm", [False, True])
def test_transfer_equals_its_definition(norm: bool) -> None:
    """ReLU after the first transfer convolution, after the sum and after the last convolution; none on the second."""
    block = transfer(norm=norm)
    above: Tensor | None = None
    expected = []
    for level in (3, 2, 1, 0):
        first, second = block.transfer[level]  # type: ignore[misc]
        features = second(first(EVEN[level]))
        assert bool((first(EVEN[level]) >= 0).all())
        assert bool((features < 0).any())
        if above is not None:
            features = features + block.enlarge[level](above)
        above = block.finish[level](features.relu())
        assert bool((above >= 0).all())
        expected.append(above)
    for found, wanted in zip(block(EVEN), expected[::-1], strict=True):
        torch.testing.assert_close(found, wanted)


def test_transfer_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        assert parameters(TransferConnection((512, 512, 1024, 512), (8, 16, 32, 64))) == 11_407_104
        assert parameters(TransferConnection((512, 1024, 2048, 512), (8, 16, 32, 64), norm=True)) == 14_949_888


def test_transfer_cuts_what_is_too_large() -> None:
    odd = [torch.randn(1, width, *side) for width, side in ((4, (13, 9)), (6, (7, 5)), (8, (4, 3)), (5, (2, 2)))]
    assert [tuple(features.shape[-2:]) for features in transfer()(odd)] == [(13, 9), (7, 5), (4, 3), (2, 2)]


def test_the_coarsest_level_reaches_the_finest() -> None:
    block = transfer()
    changed = [*EVEN[:3], EVEN[3] + 1]
    assert not torch.equal(block(EVEN)[0], block(changed)[0])
    finest = [EVEN[0] + 1, *EVEN[1:]]
    for level in (1, 2, 3):
        assert torch.equal(block(EVEN)[level], block(finest)[level])


def test_attention_weighs_channels() -> None:
    block = transfer(attention="se")
    assert parameters(block) > parameters(transfer())
    scale = SqueezeExcitation(16)
    features = torch.randn(2, 16, 5, 5)
    ratio = scale(features) / features
    assert ratio.min() > 0
    assert ratio.max() < 1
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(ratio))
    with pytest.raises(UserError, match="attention"):
        transfer(attention="cbam")


def test_bottlenecks_on_every_map() -> None:
    blocks = BottleneckBlocks((4, 64), width=16)
    assert blocks.channels == (64, 64)
    maps = blocks([torch.randn(1, 4, 6, 6), torch.randn(1, 64, 3, 3)])
    assert [tuple(features.shape) for features in maps] == [(1, 64, 6, 6), (1, 64, 3, 3)]
    # A projection also where the shape would allow a plain shortcut, as in the authors' network.
    assert all(block.downsample is not None for block in blocks.blocks)  # type: ignore[union-attr]


def test_res6() -> None:
    maps = ExtraLevels(Tiny(), [BottleneckExtra(8)])
    assert maps.channels == (4, 6, 32)
    assert maps.strides == (8, 16, 32)
    assert maps(torch.randn(2, 3, 64, 64))[2].shape == (2, 32, 2, 2)


@pytest.mark.parametrize("before", [1, 2, 3, 4, 5, 10, 19])
def test_size_of_an_extra_level_with_tensorflows_padding(before: int) -> None:
    extra = Extra(4, 8, padding="same")
    level = extra.build(4)(torch.zeros(1, 4, before, before + 1))
    assert tuple(level.shape[-2:]) == (extra.size(before), extra.size(before + 1))
    assert extra.size(before) == (before + 1) // 2
