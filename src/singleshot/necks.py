"""Necks: the layers between a backbone's maps and the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from singleshot.backbones.resnet import Bottleneck
from singleshot.errors import UserError
from singleshot.layers import (
    ACTIVATIONS,
    Activation,
    BatchNorm2d,
    ConvNormAct,
    Padding,
    SqueezeExcitation,
    StridedConv2d,
    fan_in_uniform_,
    normal_,
)


@dataclass(frozen=True)
class Extra:
    """One extra level: a 1x1 convolution to `squeeze` channels, a `kernel` one to `channels`, an activation after each.

    `padding` "same" is TensorFlow's: n cells become n / `stride`, rounded up. `separable`: the second convolution is
    a depthwise one and a 1x1 one, each with its activation (SSDLite, MobileNetV2 section 6.2).
    """

    squeeze: int
    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int | Literal["same"] = 1
    norm: tuple[bool, bool] = (False, False)  # batch norm after the first and the second convolution
    activation: Activation = "relu"
    separable: bool = False

    def size(self, before: int) -> int:
        """Cells along one side of the level, computed from those of the map before it."""
        if self.padding == "same":
            return -(-before // self.stride)
        return (before + 2 * self.padding - self.kernel) // self.stride + 1

    def build(self, inputs: int) -> nn.Module:
        """The layers on a map of `inputs` channels, initialised uniform by fan-in."""
        first, second = self.norm
        block = partial(ConvNormAct, activation=ACTIVATIONS[self.activation])
        strided = partial(block, kernel=self.kernel, stride=self.stride, padding=self.padding, norm=second)
        layers = nn.Sequential(block(inputs, self.squeeze, 1, norm=first))
        if self.separable:
            layers.append(strided(self.squeeze, self.squeeze, groups=self.squeeze))
            layers.append(block(self.squeeze, self.channels, 1, norm=second))
        else:
            layers.append(strided(self.squeeze, self.channels))
        fan_in_uniform_(layers)
        return layers


@dataclass(frozen=True)
class BottleneckExtra:
    """One extra level: ResNet's bottleneck of `width`, `width` and 4 x `width` channels that halves the map."""

    width: int
    stride_first: bool = False  # the stride is in the first 1x1 convolution

    @property
    def channels(self) -> int:
        """Channels of the level."""
        return 4 * self.width

    def build(self, inputs: int) -> nn.Module:
        """The layers on a map of `inputs` channels, initialised normal with 0.01 (RefineDet section 4, res6)."""
        block = Bottleneck(inputs, self.width, stride=2, stride_first=self.stride_first)
        normal_(block, std=0.01)
        return block


def ssd300_extras() -> tuple[Extra, ...]:
    """conv8 to conv11 of SSD300: maps of 19 -> 10, 5, 3, 1 cells (SSD figure 2)."""
    last = Extra(128, 256, stride=1, padding=0)
    return (Extra(256, 512), Extra(128, 256), last, last)


def ssd512_extras() -> tuple[Extra, ...]:
    """conv8 to conv12 of the authors' SSD512: maps of 32 -> 16, 8, 4, 2, 1 cells."""
    middle = Extra(128, 256)
    return (Extra(256, 512), middle, middle, middle, Extra(128, 256, kernel=4, stride=1, padding=1))


def derived_extras(
    map_size: tuple[int, int],
    *,
    channels: Sequence[int] = (512, 256, 256, 256),
    levels: int | None = None,
    norm: bool = False,
    padding: Padding = "symmetric",
    activation: Activation = "relu",
    separable: bool = False,
) -> tuple[Extra, ...]:
    """Extra levels from a map of `map_size` (height, width) down to a single cell, as in SSD300 and SSD512.

    Each level halves the map (3x3, stride 2, padding 1). A 3x3 map becomes 1x1 by a 3x3 convolution without padding,
    unless the number of `levels` is given.

    Args:
        map_size: (height, width) of the map that the first level reads.
        channels: channels of the levels; the last number is repeated. The 1x1 convolution before has half of them.
        levels: how many there are. None: as many as lead to a single cell.
        norm: batch norm after each convolution whose output has more than one cell. (One cell of one image has no
            variance.)
        padding: "same": each level has TensorFlow's padding and stride 2.
        activation: after each convolution.
        separable: each level has a separable convolution.
    """
    if min(map_size) < 1 or min(channels, default=0) < 2:
        raise UserError(
            "extra levels need a map of at least 1x1 and a list of channels, at least 2 each, got "
            f"{map_size} and {tuple(channels)}"
        )
    height, width = map_size
    extras: list[Extra] = []
    while max(height, width) > 1 if levels is None else len(extras) < levels:
        outputs = channels[min(len(extras), len(channels) - 1)]
        extra = Extra(outputs // 2, outputs, activation=activation, separable=separable)
        if padding == "same":
            extra = replace(extra, padding="same")
        elif levels is None and (height, width) == (3, 3):
            extra = replace(extra, stride=1, padding=0)
        height, width = extra.size(height), extra.size(width)
        extras.append(replace(extra, norm=(norm, norm and height * width > 1)))
    return tuple(extras)


def extra_sizes(map_size: tuple[int, int], extras: Sequence[Extra]) -> list[tuple[int, int]]:
    """(height, width) of each extra level that is made from a map of `map_size`."""
    sizes = [map_size]
    for extra in extras:
        height, width = sizes[-1]
        sizes.append((extra.size(height), extra.size(width)))
    return sizes[1:]


class ExtraLevels(nn.Module):
    """A backbone with more, coarser levels made from its last map (SSD section 2.1).

    Pixels -> the backbone's maps and one map per extra level. `backbone` is any module that turns pixels into a list of
    maps and has `channels` and `strides`. `outputs` are the indices of the levels to return; None: all. Extra levels
    after the last of them are not built (SSD section 3.2, Table 3). `strides` are nominal: every extra level counts as
    half the resolution of the level before.
    """

    def __init__(
        self, backbone: nn.Module, extras: Sequence[Extra | BottleneckExtra], *, outputs: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        described: Any = backbone
        channels: list[int] = list(described.channels)
        strides: list[int] = list(described.strides)
        count = len(channels) + len(extras)
        self.outputs = tuple(range(count)) if outputs is None else tuple(outputs)
        if not self.outputs or self.outputs != tuple(index for index in range(count) if index in self.outputs):
            raise UserError(f"levels {self.outputs}: expected indices from 0 to {count - 1} in ascending order")
        extras = extras[: max(0, self.outputs[-1] + 1 - len(channels))]
        self.backbone = backbone
        self.extras = nn.ModuleList()
        for extra in extras:
            self.extras.append(extra.build(channels[-1]))
            channels.append(extra.channels)
            strides.append(2 * strides[-1])
        self.channels = tuple(channels[index] for index in self.outputs)
        self.strides = tuple(strides[index] for index in self.outputs)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the chosen maps, finest first."""
        maps: list[Tensor] = list(self.backbone(pixels))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return [maps[index] for index in self.outputs]


class SameMaps(nn.Identity):
    """No neck: the heads read the backbone's maps, which have `channels`."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)


P6_SOURCES = ("c5", "p5")


def pyramid_strides(strides: Sequence[int]) -> tuple[int, ...]:
    """Strides of a pyramid's levels from those of the backbone's maps: two coarser ones follow."""
    return (*strides, 2 * strides[-1], 4 * strides[-1])


class FPN(nn.Module):
    """A feature pyramid (Lin et al., 2017) with two coarser levels (focal loss paper, section 4 and footnote 2).

    Maps of a backbone, finest first -> the same number of maps with `channels` channels and, if `coarser`, two more.
    1x1 convolutions bring all maps to `channels`. Each coarser map is added to the next finer one (nearest neighbour,
    to exactly its size), and a 3x3 convolution follows. P6 is a 3x3 convolution of stride 2 on the backbone's last map
    (`p6` "c5") or on the pyramid's ("p5"). P7 is the same on P6, after a ReLU unless `relu_before_p7` is off. There is
    no norm and no other activation. Layers are initialised uniform by fan-in.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        *,
        coarser: bool = True,
        p6: str = "c5",
        relu_before_p7: bool = True,
    ) -> None:
        super().__init__()
        if p6 not in P6_SOURCES:
            raise UserError(f"p6: expected one of {', '.join(P6_SOURCES)}, got {p6!r}")
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in inputs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        if coarser:
            self.p6 = StridedConv2d(inputs[-1] if p6 == "c5" else channels, channels, 3, 2, 1)
            self.p7 = StridedConv2d(channels, channels, 3, 2, 1)
        self.coarser, self.p6_source, self.relu_before_p7 = coarser, p6, relu_before_p7
        fan_in_uniform_(self)
        self.strides = pyramid_strides(strides) if coarser else tuple(strides)
        self.channels = (channels,) * len(self.strides)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C, h, w] -> the pyramid's, finest first."""
        merged = [lateral(features) for lateral, features in zip(self.lateral, maps, strict=True)]
        for level in reversed(range(len(merged) - 1)):
            coarser = F.interpolate(merged[level + 1], size=merged[level].shape[-2:], mode="nearest")
            merged[level] = merged[level] + coarser
        pyramid = [output(features) for output, features in zip(self.output, merged, strict=True)]
        if not self.coarser:
            return pyramid
        p6 = self.p6(maps[-1] if self.p6_source == "c5" else pyramid[-1])
        p7 = self.p7(p6.relu() if self.relu_before_p7 else p6)
        return [*pyramid, p6, p7]


ATTENTIONS = (None, "se")


class TransferConnection(nn.Module):
    """RefineDet's transfer connection blocks (section 3; layers as in the authors' script).

    Maps of a backbone, finest first -> the same number of maps with `channels` channels. Each map goes through two 3x3
    convolutions with a ReLU between them. Then the finished coarser map is enlarged by a 2x2 deconvolution and added;
    ReLU, a 3x3 convolution and ReLU follow. A finished map is read by the head and by the next finer level. If the
    enlarged map is larger than the finer one (its side is not a multiple of the coarsest stride), the rest is cut off.

    `norm`: batch norm after every convolution and deconvolution. They are then initialised normal with 0.01 (the
    authors' ResNet-101), and uniform by fan-in without norm. `attention` "se": squeeze and excitation on the
    transferred map before the sum (the paper's future work names attention).
    """

    def __init__(
        self,
        inputs: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        *,
        norm: bool = False,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise UserError(f"attention: expected one of {ATTENTIONS}, got {attention!r}")
        self.transfer = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(width, channels, norm=norm),
                ConvNormAct(channels, channels, norm=norm, activation=None),
            )
            for width in inputs
        )
        self.enlarge = nn.ModuleList(_enlarge(channels, norm) for _ in inputs[:-1])
        self.finish = nn.ModuleList(ConvNormAct(channels, channels, norm=norm) for _ in inputs)
        if norm:
            normal_(self, std=0.01)
        else:
            fan_in_uniform_(self)
        self.attention = nn.ModuleList(
            SqueezeExcitation(channels) if attention == "se" else nn.Identity() for _ in inputs
        )
        self.channels = (channels,) * len(inputs)
        self.strides = tuple(strides)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C, h, w] -> maps of the same sizes, finest first."""
        finished: list[Tensor] = []
        for level in reversed(range(len(maps))):
            features = self.attention[level](self.transfer[level](maps[level]))
            if finished:
                height, width = features.shape[-2:]
                enlarged = self.enlarge[level](finished[-1])
                if enlarged.shape[-2] < height or enlarged.shape[-1] < width:
                    raise UserError(
                        "transfer connection blocks enlarge each map two times, but the backbone's map of "
                        f"{height}x{width} cells is followed by one of {finished[-1].shape[-2]}x"
                        f"{finished[-1].shape[-1]}: its layers do not pad. Choose another backbone or neck='fpn'"
                    )
                features = features + enlarged[..., :height, :width]
            finished.append(self.finish[level](features.relu()))
        return finished[::-1]


def _enlarge(channels: int, norm: bool) -> nn.Module:
    deconvolution = nn.ConvTranspose2d(channels, channels, 2, 2, bias=not norm)
    return nn.Sequential(deconvolution, BatchNorm2d(channels)) if norm else deconvolution


class BottleneckBlocks(nn.Module):
    """One ResNet bottleneck of `width`, `width` and 4 x `width` channels on every map, with a projection.

    The authors' RefineDet with ResNet-101 has them before its heads. The paper does not mention them.
    """

    def __init__(self, inputs: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bottleneck(channels, width, stride=1, project=True) for channels in inputs)
        normal_(self, std=0.01)
        self.channels = (4 * width,) * len(inputs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C, h, w] -> maps of the same sizes."""
        return [block(features) for block, features in zip(self.blocks, maps, strict=True)]
