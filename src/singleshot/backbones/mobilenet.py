"""MobileNetV2 (Sandler et al., 2018), with torchvision's keys and layout."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from singleshot.backbones.backbone import Backbone
from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d, ConvNormAct, Padding, conv_norm, he_normal_, refuse_padding

# Table 2 of the paper: expansion, channels, blocks, stride of the first block.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, LAST = 32, 1280
STAGE_STARTS = (0, 2, 4, 7, 14, 19)  # borders in `features` of the parts with stride 2, 4, 8, 16, 32


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation; a shortcut if the shape stays the same."""

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, expansion: int, padding: Padding = "symmetric"
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormAct(inputs, hidden, 1, norm=True, activation=nn.ReLU6))
        layers += [
            ConvNormAct(
                hidden, hidden, 3, stride=stride, padding=padding, groups=hidden, norm=True, activation=nn.ReLU6
            ),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        return self.with_expansion(features)[1]

    def with_expansion(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The map after the first layer (the expansion, before the stride), and the block's output."""
        first, *others, project, norm = self.conv
        output = expanded = first(features)
        for layer in others:
            output = layer(output)
        shortcut = features if self.shortcut else None
        return expanded, conv_norm(project, norm, output, None, shortcut)  # type: ignore[arg-type]


class MobileNetV2(Backbone):
    """MobileNetV2 without its classifier; three maps at strides 8, 16 and 32.

    As in SSDLite (MobileNetV2 section 6.2), the first two maps are the expansions inside the first block at the next
    stride (192 and 576 channels at width 1). With `expanded=False` they are the narrow outputs of the blocks before
    (32 and 96 channels). The third map is the last layer (1280 channels). `width` scales all channels, which stay
    divisible by 8.

    Three options are for weights of TensorFlow: its `padding` "same", the fewest channels of a layer (`least`), and the
    channels of the `last` layer. By default these are 1280, scaled by a `width` above 1 only.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        expanded: bool = True,
        least: int = 8,
        last: int | None = None,
        padding: Padding = "symmetric",
        norm: str = "train",
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        refuse_padding(padding)
        if not 0 < width <= 8:
            raise UserError(
                f"MobileNetV2 width {width}: expected a factor for the channels, above 0 and at most 8, "
                "such as 0.5, 1.0 or 1.4"
            )
        if not 1 <= least <= LAST or not 1 <= (last or 1) <= LAST * 8:
            raise UserError(
                f"MobileNetV2 least {least} and last {last}: expected numbers of channels, from 1 to {LAST} and "
                f"{LAST * 8}"
            )
        inputs = max(_round_to_8(STEM * width), least)
        last = _round_to_8(LAST * max(1.0, width)) if last is None else last
        layers: list[nn.Module] = [ConvNormAct(3, inputs, 3, stride=2, padding=padding, norm=True, activation=nn.ReLU6)]
        for expansion, channels, blocks, first_stride in BLOCKS:
            outputs = max(_round_to_8(channels * width), least)
            for number in range(blocks):
                stride = first_stride if number == 0 else 1
                layers.append(InvertedResidual(inputs, outputs, stride=stride, expansion=expansion, padding=padding))
                inputs = outputs
        layers.append(ConvNormAct(inputs, last, 1, norm=True, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        he_normal_(self)

        self.expanded, self.padding = expanded, padding
        finer = [BLOCKS[3], BLOCKS[5]]  # their first blocks leave strides 8 and 16, and read the row before
        narrow = [max(_round_to_8(BLOCKS[BLOCKS.index(row) - 1][1] * width), least) for row in finer]
        wide = [row[0] * inputs for row, inputs in zip(finer, narrow, strict=True)]
        self.channels = (*(wide if expanded else narrow), last)
        self.strides = (8, 16, 32)
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps at strides 8, 16 and 32."""
        maps = []
        features = pixels
        for index, layer in enumerate(self.features):
            if index in STAGE_STARTS[3:5]:
                assert isinstance(layer, InvertedResidual)
                expansion, output = layer.with_expansion(features)
                maps.append(expansion if self.expanded else features)
                features = output
            else:
                features = layer(features)
        return [*maps, features]

    def stages(self) -> list[list[nn.Module]]:
        """The parts with stride 2, 4, 8, 16 and 32."""
        layers = list(self.features)
        return [layers[start:end] for start, end in pairwise(STAGE_STARTS)]


def _round_to_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at most a tenth below `channels`, as in the authors' code."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
