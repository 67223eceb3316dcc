"""EfficientNet (Tan and Le, 2019) and EfficientNet-Lite, with torchvision's keys and layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from singleshot.backbones.inverted import Gate, InvertedBlock, InvertedTrunk, round_to_8
from singleshot.errors import UserError
from singleshot.layers import ConvNormAct, Padding

# Table 1 of the paper: expansion, kernel, stride of the first block, channels, blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, LAST = 32, 1280


@dataclass(frozen=True)
class Scaling:
    """Factors of channels and of blocks (compound scaling), and whether it is a Lite: made for processors and 8 bits.

    A Lite has no squeeze-and-excitation, ReLU6 in place of SiLU, and TensorFlow's padding and epsilon. Its first and
    last layers are not scaled.
    """

    width: float
    depth: float
    lite: bool = False


SCALINGS = {
    "efficientnet_b0": Scaling(1.0, 1.0),
    "efficientnet_b1": Scaling(1.0, 1.1),
    "efficientnet_b2": Scaling(1.1, 1.2),
    "efficientnet_b3": Scaling(1.2, 1.4),
    "efficientnet_lite0": Scaling(1.0, 1.0, lite=True),
    "efficientnet_lite1": Scaling(1.0, 1.1, lite=True),
    "efficientnet_lite2": Scaling(1.1, 1.2, lite=True),
    "efficientnet_lite3": Scaling(1.2, 1.4, lite=True),
    "efficientnet_lite4": Scaling(1.4, 1.8, lite=True),
}


class EfficientNet(InvertedTrunk):
    """EfficientNet without its classifier; three maps at strides 8, 16 and 32. `scaling` is a name or a `Scaling`.

    The maps are those of `InvertedTrunk`: with B0 and Lite0 240, 672 and 1280 channels, with `expanded=False` 40, 112
    and 1280. Blocks are never dropped at random in training (`drop_connect` 0).

    A Lite also takes the keys of the PyTorch packages that bring its weights (`_blocks.0._expand_conv.weight`).
    """

    def __init__(
        self,
        scaling: str | Scaling = "efficientnet_lite0",
        *,
        expanded: bool = True,
        norm: str = "train",
        frozen_stages: int = 0,
    ) -> None:
        if isinstance(scaling, str):
            if scaling not in SCALINGS:
                raise UserError(f"EfficientNet {scaling!r}: expected one of {', '.join(SCALINGS)}")
            scaling = SCALINGS[scaling]
        lite, width = scaling.lite, scaling.width
        activation = nn.ReLU6 if lite else nn.SiLU
        padding: Padding = "same" if lite else "symmetric"
        inputs = STEM if lite else round_to_8(STEM * width)
        features: list[nn.Module] = [
            ConvNormAct(3, inputs, 3, stride=2, padding=padding, norm=True, activation=activation)
        ]
        for stage, (expansion, kernel, first_stride, channels, blocks) in enumerate(STAGES):
            outputs = round_to_8(channels * width)
            fixed = lite and stage in (0, len(STAGES) - 1)
            layers = []
            for number in range(blocks if fixed else math.ceil(blocks * scaling.depth)):
                layers.append(
                    InvertedBlock(
                        inputs,
                        outputs,
                        expanded=inputs * expansion,
                        kernel=kernel,
                        stride=first_stride if number == 0 else 1,
                        activation=activation,
                        gate=None if lite else Gate(max(1, inputs // 4), nn.SiLU, nn.Sigmoid),
                        padding=padding,
                    )
                )
                inputs = outputs
            features.append(nn.Sequential(*layers))
        last = LAST if lite else 4 * inputs
        features.append(ConvNormAct(inputs, last, 1, norm=True, activation=activation))
        super().__init__(features, last, expanded=expanded, epsilon=1e-3 if lite else 1e-5)
        self.lite = lite
        if lite:
            self.pixels = ((127 / 255,) * 3, (128 / 255,) * 3, "rgb")  # TensorFlow's: (value - 127) / 128
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the keys of the packages' files.

        Only a Lite does: with the same keys, files of the larger networks need TensorFlow's padding and epsilon too.
        """
        if not self.lite or "_conv_stem.weight" not in weights:
            return weights
        names = {"_conv_stem": "features.0.0", "_bn0": "features.0.1", "_fc": "classifier.1"}
        end = f"features.{len(self.features) - 1}"
        names |= {"_conv_head": f"{end}.0", "_bn1": f"{end}.1"}
        blocks = [(name, part) for name, part in self.named_modules() if isinstance(part, InvertedBlock)]
        for number, (ours, block) in enumerate(blocks):
            theirs = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
            for place, name in enumerate(theirs[-2 * len(block.block) :]):  # the first block has no expansion
                names[f"_blocks.{number}.{name}"] = f"{ours}.block.{place // 2}.{place % 2}"
        adapted = {}
        for key, value in weights.items():
            layer, _, entry = key.rpartition(".")
            adapted[f"{names[layer]}.{entry}" if layer in names else key] = value
        return adapted
