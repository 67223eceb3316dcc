"""ResNet (He et al., 2016) and ResNeXt (Xie et al., 2017) with torchvision's keys, and ResNet-D with timm's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from singleshot.backbones import caffe_names
from singleshot.backbones.backbone import Backbone
from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d, ConvNormAct, StridedConv2d, conv_norm, he_normal_


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; outputs `width` channels."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, *, stride: int, groups: int, group_width: int, pooled: bool = False
    ) -> None:
        super().__init__()
        assert (groups, group_width) == (1, 64), "ResNeXt has only bottlenecks"
        self.conv1 = StridedConv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride, pooled=pooled)

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, width, H / stride, W / stride]."""
        shortcut = features if self.downsample is None else self.downsample(features)
        features = conv_norm(self.conv1, self.bn1, features, self.relu)
        return conv_norm(self.conv2, self.bn2, features, self.relu, shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride, and groups in ResNeXt), 1x1 beside a shortcut; outputs 4 `width` channels.

    The shortcut is a projection if the shape changes, or always with `project`. `stride_first`: the stride is in the
    first 1x1 convolution, as in the paper, not in the 3x3 one.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int,
        groups: int = 1,
        group_width: int = 64,
        project: bool = False,
        stride_first: bool = False,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        inner = width * group_width // 64 * groups
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = (StridedConv2d if first > 1 else nn.Conv2d)(inputs, inner, 1, first, bias=False)
        self.bn1 = BatchNorm2d(inner)
        self.conv2 = StridedConv2d(inner, inner, 3, second, 1, groups=groups, bias=False)
        self.bn2 = BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, 4 * width, stride, project=project, pooled=pooled)

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 width, H / stride, W / stride]."""
        shortcut = features if self.downsample is None else self.downsample(features)
        features = conv_norm(self.conv1, self.bn1, features, self.relu)
        features = conv_norm(self.conv2, self.bn2, features, self.relu)
        return conv_norm(self.conv3, self.bn3, features, self.relu, shortcut)


class PooledShortcut(nn.Sequential):
    """ResNet-D's shortcut: the mean of 2x2 cells, and a 1x1 convolution without a stride, which sees every cell."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
        super().__init__(pool, nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        pool, convolution, norm = self
        return conv_norm(convolution, norm, pool(features))  # type: ignore[arg-type]


def _shortcut(
    inputs: int, outputs: int, stride: int, *, project: bool = False, pooled: bool = False
) -> ConvNormAct | PooledShortcut | None:
    if stride == 1 and inputs == outputs and not project:
        return None
    if pooled:
        return PooledShortcut(inputs, outputs, stride)
    return ConvNormAct(inputs, outputs, 1, stride=stride, norm=True, activation=None)


class DeepStem(nn.Sequential):
    """ResNet-D's first three convolutions, numbered as in timm. The norm after the last one is ResNet's `bn1`."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, stride in ((3, 2), (32, 1)):
            layers += [StridedConv2d(inputs, 32, 3, stride, 1, bias=False), BatchNorm2d(32), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(32, 64, 3, 1, 1, bias=False))

    @property
    def last(self) -> nn.Conv2d:
        """The last convolution."""
        return self[-1]  # type: ignore[return-value]

    def before_last(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 32, H / 2, W / 2], the input of the last convolution."""
        features = pixels
        for at in (0, 3):
            features = conv_norm(self[at], self[at + 1], features, self[at + 2])  # type: ignore[arg-type]
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 64, H / 2, W / 2], before its norm."""
        return self.last(self.before_last(pixels))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Design:
    """Block type, blocks per stage, and ResNeXt's groups and channels per group (at the first stage).

    `deep` is ResNet-D (He et al., 2019, "Bag of tricks"): three 3x3 convolutions in the place of the first one of 7x7,
    and shortcuts with a mean.
    """

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    groups: int = 1
    group_width: int = 64
    deep: bool = False


DESIGNS = {
    "resnet18": Design(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Design(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Design(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Design(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Design(Bottleneck, (3, 8, 36, 3)),
    "resnet18d": Design(BasicBlock, (2, 2, 2, 2), deep=True),
    "resnet34d": Design(BasicBlock, (3, 4, 6, 3), deep=True),
    "resnet50d": Design(Bottleneck, (3, 4, 6, 3), deep=True),
    "resnext50_32x4d": Design(Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x4d": Design(Bottleneck, (3, 4, 23, 3), 32, 4),
    "resnext101_32x8d": Design(Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": Design(Bottleneck, (3, 4, 23, 3), 64, 4),
}


class ResNet(Backbone):
    """ResNet, ResNeXt or ResNet-D without its classifier; `design` is a name in `DESIGNS` or a `Design`.

    `sources` are stages, numbered as in the papers: 2, 3, 4, 5 for the maps C2..C5 at strides 4, 8, 16, 32. Stages
    after the last source are not built.

    Weights decide about two details that no shape shows. `stride_first`: the stride of a stage is in its first 1x1
    convolution, as in the paper and its authors' Caffe files; otherwise in the 3x3 one, as in torchvision. `pool`:
    "padded", or "ceil" (Caffe's: no padding; windows begin at the map's first cell, and the last ones may be cut off).
    """

    def __init__(
        self,
        design: str | Design = "resnet50",
        *,
        sources: Sequence[int] = (3, 4, 5),
        stride_first: bool = False,
        pool: Literal["padded", "ceil"] = "padded",
        norm: str = "train",
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(design, str):
            if design not in DESIGNS:
                raise UserError(f"ResNet {design!r}: expected one of {', '.join(DESIGNS)}")
            design = DESIGNS[design]
        self.sources = tuple(sources)
        if not self.sources or self.sources != tuple(stage for stage in (2, 3, 4, 5) if stage in self.sources):
            raise UserError(f"sources {self.sources}: expected some of the stages 2, 3, 4, 5, in this order")

        self.conv1 = DeepStem() if design.deep else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        if stride_first and design.block is BasicBlock:
            raise UserError("stride_first is a choice of networks with bottlenecks, such as resnet50 or resnet101")
        self.design, self.stride_first = design, stride_first
        self.maxpool = nn.MaxPool2d(3, 2, 1) if pool == "padded" else nn.MaxPool2d(3, 2, ceil_mode=True)
        choices: dict[str, Any] = {"groups": design.groups, "group_width": design.group_width, "pooled": design.deep}
        if stride_first:
            choices["stride_first"] = True
        inputs = 64
        for stage in range(2, self.sources[-1] + 1):
            width = 64 * 2 ** (stage - 2)
            blocks = []
            for number in range(design.depths[stage - 2]):
                stride = 2 if number == 0 and stage > 2 else 1
                blocks.append(design.block(inputs, width, stride=stride, **choices))
                inputs = width * design.block.expansion
            self.add_module(f"layer{stage - 1}", nn.Sequential(*blocks))
        he_normal_(self)

        self.channels = tuple(64 * 2 ** (stage - 2) * design.block.expansion for stage in self.sources)
        self.strides = tuple(2**stage for stage in self.sources)
        absent = tuple(f"layer{stage - 1}." for stage in range(self.sources[-1] + 1, 6))
        self.ignored_weights = (*Backbone.ignored_weights, *absent)
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps of the source stages."""
        if isinstance(self.conv1, DeepStem):
            features = conv_norm(self.conv1.last, self.bn1, self.conv1.before_last(pixels), self.relu)
        else:
            features = conv_norm(self.conv1, self.bn1, pixels, self.relu)
        features = self.maxpool(features)
        maps = []
        for stage in range(2, self.sources[-1] + 1):
            features = getattr(self, f"layer{stage - 1}")(features)
            if stage in self.sources:
                maps.append(features)
        return maps

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Also take the layers of the authors' Caffe files; a detector's further layers are left out."""
        if "res2a_branch2a.weight" not in weights:
            return weights
        if not self.stride_first or self.maxpool.padding:
            warnings.warn(
                "these are Caffe's weights: their network has its strides in first 1x1 convolutions, and pools without "
                "padding. backbone_options {stride_first: true, pool: ceil} makes it; this network is another one",
                stacklevel=2,
            )
        self.expect("caffe_bgr")
        names = {key: caffe_names.resnet(key, self.design.depths) for key in self.state_dict()}
        renamed = {key: weights[name] for key, name in names.items() if name in weights}
        if "conv1.bias" in weights and "bn1.running_mean" in renamed:  # ResNet-50's has one: the norm subtracts it
            renamed["bn1.running_mean"] = renamed["bn1.running_mean"] - weights["conv1.bias"]
        return renamed

    def stages(self) -> list[list[nn.Module]]:
        """The stem, then layer1 to layer4."""
        layers = [getattr(self, f"layer{stage - 1}") for stage in range(2, self.sources[-1] + 1)]
        return [[self.conv1, self.bn1], *([layer] for layer in layers)]
