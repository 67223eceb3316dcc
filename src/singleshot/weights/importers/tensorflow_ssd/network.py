"""The network of a TensorFlow Lite detector, found in its graph: a chain of convolutions, and what predicts from it.

Names are not used, because converters change them: a layer is what it computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from singleshot.errors import UserError, some
from singleshot.weights.readers.tflite import Graph, Operator

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SAME = ("QUANTIZE", "DEQUANTIZE")  # the same map in other numbers
_FORMS = ("RESHAPE", "SQUEEZE")  # the same predictions in another form
_SCORES = ("LOGISTIC",)
_POSTPROCESS = "TFLite_Detection_PostProcess"
_KNOWN = {*_CONVOLUTIONS, *_SAME, *_FORMS, *_SCORES, _POSTPROCESS, "ADD", "CONCATENATION"}


@dataclass(frozen=True)
class Layer:
    """A convolution, with the norm that was folded into it and its activation."""

    depthwise: bool
    stride: int
    activation: str | None
    weight: str
    """The name of its kernel: [outputs, height, width, inputs]; depthwise [1, height, width, channels]."""
    bias: str
    source: str
    """The map that it reads."""
    output: str
    """Its map; after the sum, where it ends a block with a shortcut."""
    shortcut: str | None = None
    """The map that is added."""


@dataclass(frozen=True)
class Predictor:
    """What predicts from one map: a convolution, and perhaps a depthwise one before it."""

    source: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Network:
    """A single-stage detector as a graph has it."""

    input: str
    chain: tuple[Layer, ...]
    """Trunk and extra levels, each layer on the map of the one before."""
    boxes: tuple[Predictor, ...]
    scores: tuple[Predictor, ...]
    anchors: str | None
    """The constant with the anchors; None where the graph ends before the boxes."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the post-processing."""


def found_network(graph: Graph) -> Network:
    """The network of a graph.

    Raises:
        UserError: it has an operator or a connection that no SSD of TensorFlow's Object Detection API has.
    """
    if unknown := sorted({one.kind for one in graph.operators} - _KNOWN):
        pyramid = any(kind.startswith("RESIZE") for kind in unknown)
        raise UserError(
            f"the network has operators that are not those of an SSD on MobileNet: {some(unknown)}"
            f"{'; one with a feature pyramid (FPN) cannot be imported' if pyramid else ''}"
        )
    return _Walk(graph).network()


class _Walk:
    """A graph while it is followed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.same: dict[str, str] = {}  # a map in other numbers -> the map
        self.makers: dict[str, Operator] = {}
        self.readers: dict[str, list[Operator]] = {}
        for one in graph.operators:  # in the order of execution
            if one.kind in _SAME and len(one.inputs) == len(one.outputs) == 1:
                self.same[one.outputs[0]] = self.plain(one.inputs[0])
                continue
            for name in one.outputs:
                self.makers[name] = one
            for name in dict.fromkeys(map(self.plain, one.inputs)):
                self.readers.setdefault(name, []).append(one)

    def plain(self, name: str) -> str:
        return self.same.get(name, name)

    def network(self) -> Network:
        graph = self.graph
        if len(graph.inputs) != 1:
            raise UserError(f"the network has {len(graph.inputs)} inputs; expected one: the pixels")
        ends = [one for one in graph.operators if one.kind == _POSTPROCESS]
        if ends and len(ends[0].inputs) == 3:
            boxes, scores, anchors = ends[0].inputs
            options = ends[0].options
        else:
            boxes, scores = self._raw_outputs()
            anchors, options = None, {}
        predictors = [self._predictors(self.plain(name)) for name in (boxes, scores)]
        every = [one for part in predictors for one in part]
        heads = {id(self.makers[layer.output]) for one in every for layer in one.layers}
        chain = tuple(self._chain(self.plain(graph.inputs[0]), heads))
        used = len(chain) + len(heads)
        count = sum(one.kind in _CONVOLUTIONS for one in graph.operators)
        sums = sum(one.kind == "ADD" for one in graph.operators)
        if used != count or sums != sum(layer.shortcut is not None for layer in chain):
            raise UserError(
                f"of the network's {count} convolutions and {sums} sums only {used} convolutions are on one path from "
                "the pixels, or predict from it; expected an SSD"
            )
        pixels = self.plain(graph.inputs[0])
        return Network(pixels, chain, tuple(predictors[0]), tuple(predictors[1]), anchors, options)

    def _raw_outputs(self) -> tuple[str, str]:
        """The outputs with box codes and with scores, of a graph without post-processing."""
        shapes = {name: self.graph.shapes[name] for name in self.graph.outputs}
        fours = [name for name, shape in shapes.items() if shape[-1:] == (4,)]
        if len(fours) == 2:  # three classes and a background
            fours = [name for name in fours if "box" in name.lower()]
        if len(shapes) != 2 or len(fours) != 1:
            raise UserError(f"the outputs are {shapes}; expected box codes [1, N, 4] and scores [1, N, classes]")
        return fours[0], next(name for name in shapes if name != fours[0])

    def _predictors(self, name: str) -> list[Predictor]:
        """What predicts an output, for each map."""
        joined = self._back(name, "CONCATENATION")
        return [self._predictor(self.plain(one)) for one in joined.inputs]

    def _back(self, name: str, *kinds: str) -> Operator:
        """The operator of one of the `kinds` behind operators that only change the form."""
        while (maker := self.makers.get(name)) is not None:
            if maker.kind in kinds:
                return maker
            if maker.kind not in (*_FORMS, *_SCORES):
                break
            name = self.plain(maker.inputs[0])
        came = "the input" if maker is None else maker.kind
        raise UserError(f"predictions are made by {came}; expected {' or '.join(kinds)}: the network is not an SSD")

    def _predictor(self, name: str) -> Predictor:
        layers = [self._layer(self._back(name, "CONV_2D"))]
        before = self.makers.get(layers[0].source)
        if before is not None and before.kind == "DEPTHWISE_CONV_2D":
            layers.insert(0, self._layer(before))
        return Predictor(layers[0].source, tuple(layers))

    def _chain(self, name: str, heads: set[int]) -> list[Layer]:
        layers: list[Layer] = []
        while True:
            following = [
                one for one in self.readers.get(name, []) if one.kind in _CONVOLUTIONS and id(one) not in heads
            ]
            if not following:
                return layers
            if len(following) > 1:
                raise UserError(f"{len(following)} layers of the trunk read {name}; expected one: not an SSD")
            layer = self._layer(following[0])
            name = layer.output
            sums = [one for one in self.readers.get(name, []) if one.kind == "ADD"]
            if len(sums) == 1 and len(self.readers[name]) == 1 and len(sums[0].inputs) == 2:
                first, second = map(self.plain, sums[0].inputs)
                if sums[0].options.get("activation") is not None:
                    raise UserError(f"a sum is followed by {sums[0].options['activation']}; expected no activation")
                name = sums[0].outputs[0]
                layer = Layer(
                    layer.depthwise, layer.stride, layer.activation, layer.weight, layer.bias, layer.source, name,
                    second if first == layer.output else first,
                )  # fmt: skip
            layers.append(layer)

    def _layer(self, one: Operator) -> Layer:
        options = one.options
        if len(one.inputs) != 3:
            raise UserError(f"a convolution has {len(one.inputs)} inputs; expected a map, a kernel and a bias")
        sides = (options["stride"], options["stride_x"])
        sound = sides[0] == sides[1] and options["dilation"] == 1 and options.get("multiplier", 1) == 1
        kernel = self.graph.shapes.get(one.inputs[1], ())
        if not sound or (options["padding"] != "SAME" and kernel[1:3] != (1, 1)):
            raise UserError(
                f"a convolution has stride {sides}, dilation {options['dilation']} and padding {options['padding']}; "
                "expected one stride for both sides, no dilation, and SAME"
            )
        return Layer(
            one.kind == "DEPTHWISE_CONV_2D", sides[0], options["activation"], one.inputs[1], one.inputs[2],
            self.plain(one.inputs[0]), one.outputs[0],
        )  # fmt: skip
