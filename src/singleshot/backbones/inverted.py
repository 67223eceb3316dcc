"""Trunks of inverted residual blocks with torchvision's keys: what EfficientNet and MobileNetV3 have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from singleshot.backbones.backbone import Backbone
from singleshot.layers import BatchNorm2d, ConvNormAct, Padding, he_normal_


@dataclass(frozen=True)
class Gate:
    """Squeeze-and-excitation in a block: channels of its hidden layer, what follows this layer, and the gate itself."""

    hidden: int
    activation: Callable[..., nn.Module]
    gate: Callable[[], nn.Module]


class ChannelGate(nn.Module):
    """Channel attention (Hu et al., 2018) with torchvision's keys; each network has its own two non-linearities."""

    def __init__(self, channels: int, choice: Gate) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, choice.hidden, 1)
        self.fc2 = nn.Conv2d(choice.hidden, channels, 1)
        self.activation = choice.activation(inplace=True)
        self.gate = choice.gate()

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        hidden = self.activation(self.fc1(features.mean((2, 3), keepdim=True)))
        return features * self.gate(self.fc2(hidden))  # type: ignore[no-any-return]


class InvertedBlock(nn.Module):
    """1x1 expansion, depthwise convolution, perhaps a gate, 1x1 projection without activation.

    There is a shortcut if the shape stays the same, and no expansion if it would not change the number of channels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        expanded: int,
        kernel: int,
        stride: int,
        activation: Callable[..., nn.Module],
        gate: Gate | None = None,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(ConvNormAct(inputs, expanded, 1, norm=True, activation=activation))
        layers.append(
            ConvNormAct(
                expanded,
                expanded,
                kernel,
                stride=stride,
                padding=padding,
                groups=expanded,
                norm=True,
                activation=activation,
            )
        )
        if gate is not None:
            layers.append(ChannelGate(expanded, gate))
        layers.append(ConvNormAct(expanded, outputs, 1, norm=True, activation=None))
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs
        self.stride, self.inputs, self.expanded = stride, inputs, expanded

    def forward(self, features: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        return self.with_expansion(features)[1]

    def with_expansion(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The map after the first layer (the expansion, before the stride), and the block's output."""
        first, *others = self.block
        output = expanded = first(features)
        for layer in others:
            output = layer(output)
        return expanded, features + output if self.shortcut else output


class InvertedTrunk(Backbone):
    """A strided convolution, inverted blocks and a last 1x1 convolution, in `features`; maps at strides 8, 16 and 32.

    As in SSDLite (MobileNetV2 section 6.2, MobileNetV3 section 6.3), the first two maps are the expansions inside the
    first block at the next stride. With `expanded=False` they are the narrow outputs of the blocks before. The third
    map is the last layer.
    """

    def __init__(self, features: Sequence[nn.Module], last: int, *, expanded: bool, epsilon: float) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        he_normal_(self)
        for part in self.modules():
            if isinstance(part, BatchNorm2d):
                part.eps = epsilon

        self.expanded = expanded
        sources = [layer for layer in self.layers() if isinstance(layer, InvertedBlock) and layer.stride == 2][-2:]
        self.channels = (*(block.expanded if expanded else block.inputs for block in sources), last)
        self.strides = (8, 16, 32)

    def layers(self) -> list[nn.Module]:
        """The layers in order, blocks as one layer each, whether the trunk has them in stages or not."""
        parts = list(self.features)
        return [layer for part in parts for layer in (part if type(part) is nn.Sequential else [part])]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps at strides 8, 16 and 32."""
        *_, at_8, at_16, _ = self._starts()
        maps = []
        features = pixels
        for index, layer in enumerate(self.layers()):
            if index in (at_8, at_16):
                assert isinstance(layer, InvertedBlock)
                expansion, output = layer.with_expansion(features)
                maps.append(expansion if self.expanded else features)
                features = output
            else:
                features = layer(features)
        return [*maps, features]

    def stages(self) -> list[list[nn.Module]]:
        """The parts with stride 2, 4, 8, 16 and 32."""
        layers = self.layers()
        return [layers[start:end] for start, end in pairwise(self._starts())]

    def _starts(self) -> list[int]:
        """Where the parts with stride 2, 4, 8, 16 and 32 begin in `layers`, and the end."""
        layers = self.layers()
        strided = [k for k, layer in enumerate(layers) if isinstance(layer, InvertedBlock) and layer.stride == 2]
        return [0, *strided, len(layers)]


def round_to_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at most a tenth below `channels`, as in the authors' code."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
