"""MobileNet (Howard et al., 2017), as the detectors of TensorFlow's Object Detection API have it."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from singleshot.backbones.backbone import Backbone
from singleshot.errors import UserError
from singleshot.layers import ConvNormAct, Padding, he_normal_, refuse_padding

# Table 1 of the paper: channels and stride of each separable convolution.
LAYERS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
STEM = 32
STAGE_STARTS = (0, 2, 4, 6, 12, 14)  # borders in `features` of the parts with stride 2, 4, 8, 16, 32


class MobileNetV1(Backbone):
    """MobileNet without its classifier; three maps at strides 8, 16 and 32 (256, 512 and 1024 channels at width 1).

    Each separable convolution is a depthwise 3x3 and a 1x1 one, each with batch norm and ReLU6 (the authors' code; the
    paper has ReLU). `width` scales all channels, which are at least `least`. `padding` "same" is TensorFlow's: weights
    that were trained with it need it.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        least: int = 8,
        padding: Padding = "symmetric",
        norm: str = "train",
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        refuse_padding(padding)
        if not 0 < width <= 8 or not 1 <= least <= 1024:
            raise UserError(
                f"MobileNetV1 width {width} and least {least}: expected a factor for the channels, above 0 and at most "
                "8, such as 0.5, and the fewest channels of a layer, 1 to 1024"
            )
        inputs = max(int(STEM * width), least)
        layers: list[nn.Module] = [ConvNormAct(3, inputs, 3, stride=2, padding=padding, norm=True, activation=nn.ReLU6)]
        made = []
        for channels, stride in LAYERS:
            outputs = max(int(channels * width), least)
            depthwise = ConvNormAct(
                inputs, inputs, 3, stride=stride, padding=padding, groups=inputs, norm=True, activation=nn.ReLU6
            )
            layers.append(nn.Sequential(depthwise, ConvNormAct(inputs, outputs, 1, norm=True, activation=nn.ReLU6)))
            made.append(outputs)
            inputs = outputs
        self.features = nn.Sequential(*layers)
        he_normal_(self)
        self.padding = padding
        self.channels = tuple(made[end - 2] for end in STAGE_STARTS[3:])
        self.strides = (8, 16, 32)
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps at strides 8, 16 and 32."""
        maps = []
        features = pixels
        for end, layer in enumerate(self.features, 1):
            features = layer(features)
            if end in STAGE_STARTS[3:]:
                maps.append(features)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """The parts with stride 2, 4, 8, 16 and 32."""
        layers = list(self.features)
        return [layers[start:end] for start, end in pairwise(STAGE_STARTS)]
