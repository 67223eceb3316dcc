"""Which of our backbones the trunk of a TensorFlow network is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from singleshot.backbones import build
from singleshot.backbones.mobilenet import InvertedResidual
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.weights.importers.tensorflow_ssd.network import Layer
from singleshot.weights.importers.tensorflow_ssd.places import places
from singleshot.weights.readers.tflite import Graph

_LEAST = (8, 16)  # fewest channels of a layer: of the classifiers, and of the detectors


def trunk_of(chain: Sequence[Layer], graph: Graph) -> tuple[str, dict[str, Any]]:
    """The name and the options of the backbone with these layers: MobileNet (the first) without shortcuts, else V2.

    Raises:
        UserError: the layers are those of another network.
    """
    kernels = [graph.shapes[layer.weight] for layer in chain]
    channels = [kernel[0] for kernel, layer in zip(kernels, chain, strict=True) if not layer.depthwise]
    second = any(layer.shortcut is not None for layer in chain)
    name = "mobilenetv2" if second else "mobilenetv1"
    width = channels[-2] / 320 if second else channels[-1] / 1024
    options: dict[str, Any] = {"width": width, "padding": "same", **({"last": channels[-1]} if second else {})}
    if not 0 < width <= 8:
        raise UserError(f"the layers of the trunk have {channels} channels; expected those of a MobileNet")
    for least in _LEAST:
        with without_values():
            trunk: Any = build(name, options={**options, "least": least})
        own = places("", trunk)
        if [one.convolution.out_channels for one in own] == [_outputs(layer, graph) for layer in chain]:
            break
    if len(own) != len(chain):
        raise UserError(f"the trunk has {len(chain)} convolutions; expected {name}'s {len(own)}")
    _same_shortcuts(chain, trunk.features)
    return name, {**options, "least": least}


def _outputs(layer: Layer, graph: Graph) -> int:
    return graph.shapes[layer.weight][3 if layer.depthwise else 0]


def _same_shortcuts(chain: Sequence[Layer], features: nn.Sequential) -> None:
    index = 0
    for part in features:
        count = len(places("", part))
        block = chain[index : index + count]
        expected = block[0].source if isinstance(part, InvertedResidual) and part.shortcut else None
        if block[-1].shortcut != expected or any(layer.shortcut is not None for layer in block[:-1]):
            raise UserError(f"the layer {block[-1].weight} does not have MobileNetV2's shortcut")
        index += count
