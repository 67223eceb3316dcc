"""MobileNetV3-Large (Howard et al., 2019), with torchvision's keys and layout."""

from __future__ import annotations

from torch import nn

from singleshot.backbones.inverted import Gate, InvertedBlock, InvertedTrunk, round_to_8
from singleshot.layers import ConvNormAct

# Table 1 of the paper: kernel, expanded channels, channels, squeeze-and-excitation, hard swish (else ReLU), stride.
BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
STEM = 16
TAIL = 12  # the first block of the tail, whose channels `reduced_tail` halves


class MobileNetV3(InvertedTrunk):
    """MobileNetV3-Large without its classifier; three maps at strides 8, 16 and 32.

    The maps are those of `InvertedTrunk`: 240, 672 and 960 channels, with `expanded=False` 40, 112 and 960.
    `reduced_tail` halves the channels of the last blocks, as for detection (Table 6) and in torchvision's SSDlite.
    """

    def __init__(
        self, *, reduced_tail: bool = False, expanded: bool = True, norm: str = "train", frozen_stages: int = 0
    ) -> None:
        inputs = STEM
        features: list[nn.Module] = [ConvNormAct(3, inputs, 3, stride=2, norm=True, activation=nn.Hardswish)]
        for number, (kernel, wide, outputs, gated, hard, stride) in enumerate(BLOCKS):
            part = 2 if reduced_tail and number >= TAIL else 1
            # The tail's first block expands the channels before it, which are not halved.
            wide = wide if number == TAIL else wide // part
            features.append(
                InvertedBlock(
                    inputs,
                    outputs // part,
                    expanded=wide,
                    kernel=kernel,
                    stride=stride,
                    activation=nn.Hardswish if hard else nn.ReLU,
                    gate=Gate(round_to_8(wide // 4), nn.ReLU, nn.Hardsigmoid) if gated else None,
                )
            )
            inputs = outputs // part
        last = 6 * inputs
        features.append(ConvNormAct(inputs, last, 1, norm=True, activation=nn.Hardswish))
        super().__init__(features, last, expanded=expanded, epsilon=1e-3)
        self.fix(norm=norm, frozen_stages=frozen_stages)
