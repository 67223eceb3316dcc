"""VGG-16 with fc6 and fc7 as convolutions (Simonyan and Zisserman, 2015; SSD section 3; RefineDet section 4)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from singleshot.backbones import caffe_names
from singleshot.backbones.backbone import Backbone
from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d, ConvNormAct, L2Scale, he_normal_

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@dataclass(frozen=True)
class Tail:
    """The layers after conv5_3, and which maps are taken."""

    pool5: tuple[int, int, int]  # kernel, stride, padding
    fc6: tuple[int, int]  # kernel, dilation; the padding keeps the size
    channels: int  # of fc6 and fc7
    sources: tuple[str, ...]
    l2_scales: Mapping[str, float]  # initial scale of the sources that are L2-normalised


VARIANTS: Mapping[str, Tail] = {
    # SSD section 3: pool5 does not subsample; fc6's dilation makes up for it.
    "reduced": Tail((3, 1, 1), (3, 6), 1024, ("conv4_3", "fc7"), {"conv4_3": 20.0}),
    # SSD section 3.2, "Atrous is faster": pool5 as in the classifier, fc6 and fc7 complete, conv5_3 as one more source.
    "full": Tail((2, 2, 0), (7, 1), 4096, ("conv4_3", "conv5_3", "fc7"), {"conv4_3": 20.0}),
    # RefineDet section 4 and its authors' script: pool5 subsamples and fc6's dilation is halved.
    "refinedet": Tail((2, 2, 0), (3, 3), 1024, ("conv4_3", "conv5_3", "fc7"), {"conv4_3": 10.0, "conv5_3": 8.0}),
}

_SOURCES = {"conv3_3": 4, "conv4_3": 8, "conv5_3": 16, "fc7": 0}  # stride; that of fc7 depends on pool5


class VGG16(Backbone):
    """VGG-16's convolutions, fc6 and fc7. The keys of the convolutions are torchvision's (`features.N.weight`).

    Pooling rounds up, as in Caffe: 300 px give maps of 38 and 19 cells. `variant` is a name in `VARIANTS` or a `Tail`.
    `sources` names the maps to return, finest first and fc7 last. `l2_scales` gives the initial scale of the maps that
    are L2-normalised; the trunk itself continues from the map that is not normalised.
    """

    optional_weights = ("fc6.", "fc7.", "scales.")

    def __init__(
        self,
        variant: str | Tail = "reduced",
        *,
        batch_norm: bool = False,
        sources: Sequence[str] | None = None,
        l2_scales: Mapping[str, float] | None = None,
        norm: str = "train",
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        self.has_norm = batch_norm
        tail = variant if isinstance(variant, Tail) else _tail(variant)
        self.sources = tail.sources if sources is None else tuple(sources)
        if self.sources != tuple(name for name in _SOURCES if name in self.sources) or self.sources[-1:] != ("fc7",):
            raise UserError(f"sources {self.sources}: expected some of {', '.join(_SOURCES)}, in this order, fc7 last")

        layers, self._source_at, self._stage_ends = _convolutions(tail, batch_norm)
        self.features = nn.Sequential(*layers)
        kernel, dilation = tail.fc6
        self.fc6 = ConvNormAct(BLOCKS[-1][-1], tail.channels, kernel, dilation=dilation, norm=batch_norm)
        self.fc7 = ConvNormAct(tail.channels, tail.channels, 1, norm=batch_norm)
        widths = {f"conv{number}_3": BLOCKS[number - 1][-1] for number in (3, 4, 5)} | {"fc7": tail.channels}
        scales = tail.l2_scales if l2_scales is None else l2_scales
        self.scales = nn.ModuleDict(
            {name: L2Scale(widths[name], scales[name]) for name in self.sources if name in scales}
        )
        he_normal_(self)

        self.channels = tuple(widths[name] for name in self.sources)
        self.strides = tuple(_SOURCES[name] or 16 * tail.pool5[1] for name in self.sources)
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The source maps after their ReLU, L2-normalised if `l2_scales` names them."""
        maps: dict[str, Tensor] = {}
        features = pixels
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self._source_at:
                maps[self._source_at[index]] = features
        maps["fc7"] = self.fc7(self.fc6(features))
        for name, scale in self.scales.items():
            maps[name] = scale(maps[name])
        return [maps[name] for name in self.sources]

    def stages(self) -> list[list[nn.Module]]:
        """The five blocks of convolutions. fc6 and fc7 belong to the last one."""
        layers = list(self.features)
        starts = (0, *self._stage_ends[:-1])
        blocks = [layers[start:end] for start, end in zip(starts, self._stage_ends, strict=True)]
        blocks[-1] += [self.fc6, self.fc7]
        return blocks

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn torchvision's classifier into fc6 and fc7, subsampled if this network's are; also take Caffe's layers.

        The well-known "fc-reduced" file numbers its layers as one flat list: 0..28 the convolutions, 31 fc6, 33 fc7.
        The authors' own files have names such as conv1_1; a detector's further layers are left out.
        """
        if "conv1_1.weight" in weights:
            weights = self._from_caffe(weights)
            self.expect("caffe_bgr")
        if "0.weight" in weights:
            self.expect("caffe_bgr")  # the file was made from the authors' Caffe file
            renamed = {"31.": "fc6.0.", "33.": "fc7.0."}
            weights = {
                next(
                    (new + key[len(old) :] for old, new in renamed.items() if key.startswith(old)), "features." + key
                ): value
                for key, value in weights.items()
            }
        # torchvision also publishes a file for features only, in which the classifier is NaN on purpose.
        adapted = {key: value for key, value in weights.items() if not key.startswith("classifier.")}
        if "classifier.0.weight" not in weights or weights["classifier.0.weight"].isnan().any():
            if "fc6.0.weight" not in weights:
                warnings.warn(
                    "the weights have no usable fc6 and fc7: these keep their initial random values", stacklevel=2
                )
            return adapted
        for old, name, inputs, size in (("classifier.0", "fc6", 512, 7), ("classifier.3", "fc7", 4096, 1)):
            weight, bias = weights.get(f"{old}.weight"), weights.get(f"{old}.bias")
            if weight is None or bias is None or weight.shape != (4096, inputs * size**2) or bias.shape != (4096,):
                raise UserError(
                    f"{old}: expected VGG-16's weight of shape (4096, {inputs * size**2}) and a bias, "
                    f"got {None if weight is None else tuple(weight.shape)}"
                )
            adapted |= self._as_convolution(name, weight.reshape(4096, inputs, size, size), bias)
        return adapted

    def _from_caffe(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trunk's layers of a Caffe file, with torchvision's names if fc6 and fc7 are the classifier's."""
        renamed = {key: weights[name] for key in self.state_dict() if (name := caffe_names.vgg16(key)) in weights}
        for layer, name in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
            weight, bias = weights.get(f"{layer}.weight"), weights.get(f"{layer}.bias")
            if weight is not None and bias is not None and len(weight) == 4096:
                renamed.pop(f"{layer}.0.weight", None)
                renamed.pop(f"{layer}.0.bias", None)
                renamed |= {f"{name}.weight": weight.flatten(1), f"{name}.bias": bias}
        return renamed

    def _as_convolution(self, name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Take every n-th output, input and kernel tap of a full layer, so that it fits this layer (SSD section 3)."""
        block: ConvNormAct = getattr(self, name)
        target = block[0].weight
        assert isinstance(target, Tensor)
        steps = [-(-full // kept) for full, kept in zip(weight.shape, target.shape, strict=True)]
        weight, bias = weight[:: steps[0], :: steps[1], :: steps[2], :: steps[3]], bias[:: steps[0]]
        norm = next((part for part in block if isinstance(part, BatchNorm2d)), None)
        if norm is None:
            return {f"{name}.0.weight": weight, f"{name}.0.bias": bias}
        return {  # a norm that does nothing but add the bias
            f"{name}.0.weight": weight,
            f"{name}.1.weight": bias.new_ones(len(bias)),
            f"{name}.1.bias": bias,
            f"{name}.1.running_mean": bias.new_zeros(len(bias)),
            f"{name}.1.running_var": bias.new_ones(len(bias)),
        }


def _tail(variant: str) -> Tail:
    if variant not in VARIANTS:
        raise UserError(f"VGG-16 variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def _convolutions(tail: Tail, batch_norm: bool) -> tuple[list[nn.Module], dict[int, str], tuple[int, ...]]:
    """The flat list of layers that torchvision numbers, and where each possible source and each stage ends in it."""
    layers: list[nn.Module] = []
    source_at: dict[int, str] = {}
    stage_ends: list[int] = []
    inputs = 3
    for number, block in enumerate(BLOCKS, 1):
        for outputs in block:
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            if batch_norm:
                layers.append(BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
            inputs = outputs
        source_at[len(layers) - 1] = f"conv{number}_{len(block)}"
        kernel, stride, padding = tail.pool5 if number == len(BLOCKS) else (2, 2, 0)
        layers.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=True))
        stage_ends.append(len(layers))
    return layers, source_at, tuple(stage_ends)
