"""Necks: what stands between a backbone's maps and the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from singleshot.errors import UserError
from singleshot.layers import ConvNormAct, fan_in_uniform_


@dataclass(frozen=True)
class Extra:
    """One extra level: a 1x1 convolution to `squeeze` channels, then a `kernel` one to `channels`, ReLU after each."""

    squeeze: int
    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1
    norm: tuple[bool, bool] = (False, False)  # batch norm after the first and the second convolution

    def size(self, before: int) -> int:
        """Cells along one side of the level, from those of the map before it."""
        return (before + 2 * self.padding - self.kernel) // self.stride + 1


def ssd300_extras() -> tuple[Extra, ...]:
    """conv8 to conv11 of SSD300: maps of 19 -> 10, 5, 3, 1 cells (SSD figure 2)."""
    last = Extra(128, 256, stride=1, padding=0)
    return (Extra(256, 512), Extra(128, 256), last, last)


def ssd512_extras() -> tuple[Extra, ...]:
    """conv8 to conv12 of the authors' SSD512: maps of 32 -> 16, 8, 4, 2, 1 cells."""
    middle = Extra(128, 256)
    return (Extra(256, 512), middle, middle, middle, Extra(128, 256, kernel=4, stride=1, padding=1))


def derived_extras(
    map_size: tuple[int, int], *, channels: Sequence[int] = (512, 256, 256, 256), norm: bool = False
) -> tuple[Extra, ...]:
    """Extra levels from a map of `map_size` (height, width) down to a single cell, as SSD300's and SSD512's go.

    Each halves the map (3x3, stride 2, padding 1); a 3x3 map becomes 1x1 by a 3x3 convolution without padding.
    `channels` are those of the levels, the last repeated; the 1x1 convolution before has half of them. `norm`: batch
    norm after each convolution whose output is larger than one cell, as one cell of one image has no variance.
    """
    if min(map_size) < 1 or not channels:
        raise UserError(
            f"extra levels need a map of at least 1x1 and their channels, got {map_size} and {tuple(channels)}"
        )
    height, width = map_size
    extras: list[Extra] = []
    while max(height, width) > 1:
        outputs = channels[min(len(extras), len(channels) - 1)]
        stride, padding = (1, 0) if (height, width) == (3, 3) else (2, 1)
        extra = Extra(outputs // 2, outputs, stride=stride, padding=padding)
        height, width = extra.size(height), extra.size(width)
        extras.append(
            Extra(outputs // 2, outputs, stride=stride, padding=padding, norm=(norm, norm and height * width > 1))
        )
    return tuple(extras)


class ExtraLevels(nn.Module):
    """A backbone and further, coarser levels made from its last map (SSD section 2.1).

    Pixels -> the backbone's maps and one map per `Extra`. `outputs`: indices of the levels to return, all when None;
    extra levels behind the last of them are not built (SSD section 3.2, Table 3). Added layers are drawn
    uniform by fan-in. `strides` are nominal: every extra level counts as half the resolution of the one before.
    `backbone` is any module from pixels to a list of maps that has `channels` and `strides`.
    """

    def __init__(self, backbone: nn.Module, extras: Sequence[Extra], *, outputs: Sequence[int] | None = None) -> None:
        super().__init__()
        described: Any = backbone
        channels: list[int] = list(described.channels)
        strides: list[int] = list(described.strides)
        count = len(channels) + len(extras)
        self.outputs = tuple(range(count)) if outputs is None else tuple(outputs)
        if not self.outputs or self.outputs != tuple(index for index in range(count) if index in self.outputs):
            raise UserError(f"levels {self.outputs}: expected increasing indices from 0 to {count - 1}")
        extras = extras[: max(0, self.outputs[-1] + 1 - len(channels))]
        self.backbone = backbone
        self.extras = nn.ModuleList()
        for extra in extras:
            first, second = extra.norm
            self.extras.append(
                nn.Sequential(
                    ConvNormAct(channels[-1], extra.squeeze, 1, norm=first),
                    ConvNormAct(
                        extra.squeeze,
                        extra.channels,
                        extra.kernel,
                        stride=extra.stride,
                        padding=extra.padding,
                        norm=second,
                    ),
                )
            )
            channels.append(extra.channels)
            strides.append(2 * strides[-1])
        fan_in_uniform_(self.extras)
        self.channels = tuple(channels[index] for index in self.outputs)
        self.strides = tuple(strides[index] for index in self.outputs)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the chosen maps, finest first."""
        maps: list[Tensor] = list(self.backbone(pixels))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return [maps[index] for index in self.outputs]


P6_SOURCES = ("c5", "p5")


class FPN(nn.Module):
    """A feature pyramid (Lin et al., 2017) with two coarser levels (focal loss paper, section 4 and footnote 2).

    Maps of a backbone, finest first -> as many maps of `channels` channels and two more: 1x1 convolutions bring the
    maps to one width, each coarser map is added to the next finer one (nearest neighbour, to its very size), a 3x3
    convolution follows. P6 is a 3x3 convolution of stride 2 on the backbone's last map ("c5") or on the pyramid's
    ("p5"); P7 the same on P6, after ReLU unless `relu_before_p7` is off. No norm, no other activation; drawn uniform by
    fan-in.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        strides: Sequence[int],
        channels: int = 256,
        *,
        p6: str = "c5",
        relu_before_p7: bool = True,
    ) -> None:
        super().__init__()
        if p6 not in P6_SOURCES:
            raise UserError(f"p6: expected one of {', '.join(P6_SOURCES)}, got {p6!r}")
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in inputs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        self.p6 = nn.Conv2d(inputs[-1] if p6 == "c5" else channels, channels, 3, 2, 1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.p6_source, self.relu_before_p7 = p6, relu_before_p7
        fan_in_uniform_(self)
        self.channels = (channels,) * (len(inputs) + 2)
        self.strides = (*strides, 2 * strides[-1], 4 * strides[-1])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C, h, w] -> the pyramid's, finest first."""
        merged = [lateral(features) for lateral, features in zip(self.lateral, maps, strict=True)]
        for level in reversed(range(len(merged) - 1)):
            coarser = F.interpolate(merged[level + 1], size=merged[level].shape[-2:], mode="nearest")
            merged[level] = merged[level] + coarser
        pyramid = [output(features) for output, features in zip(self.output, merged, strict=True)]
        p6 = self.p6(maps[-1] if self.p6_source == "c5" else pyramid[-1])
        p7 = self.p7(p6.relu() if self.relu_before_p7 else p6)
        return [*pyramid, p6, p7]


def map_sizes(backbone: nn.Module, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each map that `backbone` makes of an image of `image_size`; nothing is computed."""
    shadow = {name: tensor.to("meta") for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())}
    pixels = torch.empty(2, 3, *image_size, device="meta")  # two, because batch norm may refuse one
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        maps = torch.func.functional_call(backbone, shadow, (pixels,))
    return [(features.shape[-2], features.shape[-1]) for features in maps]
