"""Imports SSDs of TensorFlow's Object Detection API from `.tflite` files: MobileNets with any of their heads.

Batch norm is folded into the convolutions of such files. Here each convolution with a norm gets one that changes
nothing (mean 0, variance 1), so the detector is exact in eval mode. Before training with `norm: train` the statistics
should be those of photographs: `singleshot.settle_norm`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from singleshot.detectors import BUILDERS
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.source import CLASS_NAMES, Source
from singleshot.weights.importers.tensorflow_ssd.boxes import published_shapes, shapes_of_anchors
from singleshot.weights.importers.tensorflow_ssd.network import Layer, Network, Predictor, found_network
from singleshot.weights.importers.tensorflow_ssd.places import Place, places
from singleshot.weights.importers.tensorflow_ssd.trunk import trunk_of
from singleshot.weights.readers.tflite import GRAPH, Graph

TITLE = "an SSD of TensorFlow's Object Detection API"

_ARGUMENTS = "arguments"  # the note in which `prepare` leaves the builder's arguments
_FROM_OPTIONS = {"nms_score_threshold": "threshold", "nms_iou_threshold": "nms", "max_detections": "detections"}
_USUAL = (10.0, 10.0, 5.0, 5.0)  # 1 / variance of x, y, width and height


def recognises(source: Source) -> bool:
    """A `.tflite` file, of any network: `prepare` says what is not that of a detector."""
    return isinstance(source.notes.get(GRAPH), Graph)


def prepare(source: Source) -> Source:
    """The tensors under our names: the convolutions of both networks, in the order in which they are computed."""
    graph: Graph = source.notes[GRAPH]
    network = found_network(graph)
    tensors = source.tensors
    head = _Head.of(network, graph)
    arguments = {
        **_surroundings(network, graph, head, source.notes.get(CLASS_NAMES)),
        **_layers(network, graph, head),
        **_boxes(network, graph, head, tensors.get(network.anchors or "")),
    }
    with without_values():
        detector: Any = BUILDERS["ssd"](**arguments)
    if list(detector.map_shapes(detector.image_size)) != head.maps:
        raise UserError(f"the maps are {head.maps}, expected {list(detector.map_shapes(detector.image_size))}")
    trunk, extras = detector.backbone.backbone, detector.backbone.extras
    own = [*places("backbone.backbone", trunk), *places("backbone.extras", extras)]
    given = _filled(network.chain, own, [_kernel(layer, source) for layer in network.chain])
    for level, pair in enumerate(zip(network.scores, network.boxes, strict=True)):
        for branch, (predictor, rows) in enumerate(zip(pair, (head.score_rows, head.box_rows), strict=True)):
            kernels = [_kernel(layer, source) for layer in predictor.layers]
            kernels[-1] = (rows(kernels[-1][0]), rows(kernels[-1][1]))
            own = places(f"head.levels.{level}.{branch}", detector.head.levels[level][branch])
            given |= _filled(predictor.layers, own, kernels)
    return dataclasses.replace(source, tensors=given, notes={**source.notes, _ARGUMENTS: arguments})


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd`, with all arguments that follow from the graph."""
    return "ssd", dict(source.notes[_ARGUMENTS])


def rename(key: str, source: Source) -> list[str]:
    """`prepare` has used our names."""
    return [key]


def unneeded(key: str) -> bool:
    """Never: `prepare` has left out what is no weight."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """Nothing: `prepare` has done it all."""


@dataclasses.dataclass(frozen=True)
class _Head:
    """The numbers of the predictions."""

    maps: list[tuple[int, int]]
    per_cell: list[int]
    """Boxes of a cell of each map."""
    columns: int
    """Scores of a box."""
    background: int
    """How many of them, at the beginning, are no class: 1 or 0."""
    codes: tuple[float, float, float, float]
    """What x, y, width and height of a box code are multiplied with, to have our variances."""

    @classmethod
    def of(cls, network: Network, graph: Graph) -> _Head:
        sources = [[predictor.source for predictor in part] for part in (network.boxes, network.scores)]
        if sources[0] != sources[1]:
            raise UserError("boxes and scores are not predicted from the same maps: not an SSD")
        maps = [graph.shapes[name] for name in sources[0]]
        boxes, scores = ([_outputs(one, graph) for one in part] for part in (network.boxes, network.scores))
        per_cell = [number // 4 for number in boxes]
        columns = scores[0] // max(per_cell[0], 1)
        if any(number % 4 for number in boxes) or scores != [columns * number for number in per_cell] or columns < 2:
            raise UserError(
                f"the maps have {boxes} box codes and {scores} scores in a cell; expected 4 and as many each"
            )
        background = columns - int(network.options.get("num_classes", columns - 1))
        if background not in (0, 1):
            raise UserError(f"a box has {columns} scores for {columns - background} classes; expected one more at most")
        given = [float(network.options.get(f"{name}_scale", usual)) for name, usual in zip("xywh", _USUAL, strict=True)]
        if not all(0 < number < 1e6 for number in given):
            raise UserError(f"the scales of the box codes are {given}; expected numbers above 0")
        codes = tuple(usual / number for usual, number in zip(_USUAL, given, strict=True))
        return cls([(shape[1], shape[2]) for shape in maps], per_cell, columns, background, codes)  # type: ignore[arg-type]

    def score_rows(self, values: Tensor) -> Tensor:
        """Rows of a class layer: the background of each box is left out."""
        return values.reshape(-1, self.columns, *values.shape[1:])[:, self.background :].flatten(0, 1)

    def box_rows(self, values: Tensor) -> Tensor:
        """Rows of a box layer: (y, x, height, width) of each box become (x, y, width, height)."""
        factors = torch.tensor(self.codes).reshape(4, *[1] * (values.ndim - 1))
        return (values.reshape(-1, 4, *values.shape[1:])[:, [1, 0, 3, 2]] * factors).flatten(0, 1)


def _outputs(predictor: Predictor, graph: Graph) -> int:
    return graph.shapes[predictor.layers[-1].weight][0]


def _surroundings(network: Network, graph: Graph, head: _Head, names: Sequence[str] | None) -> dict[str, Any]:
    """Classes, input, and post-processing where the file has one."""
    shape = graph.shapes[network.input]
    if len(shape) != 4 or shape[3] != 3 or min(shape[1:3]) < 1:
        raise UserError(f"the input has the shape {shape}; expected [1, height, width, 3]")
    scale, zero = graph.quantised.get(graph.inputs[0], (1 / 127.5, 127.5))
    mean, std = [zero / 255] * 3, [1 / (255 * scale)] * 3
    count = head.columns - head.background
    arguments: dict[str, Any] = {
        "num_classes": count,
        "image_size": shape[1] if shape[1] == shape[2] else list(shape[1:3]),
        "pixels": [mean, std, "rgb"],
        "classification": {"type": "FocalLoss"},
    }
    if names is not None and len(names) in (count, count + 1):
        arguments["class_names"] = list(names)[-count:]
    for name, ours in _FROM_OPTIONS.items():
        if name in network.options:
            arguments[ours] = network.options[name]
    return arguments


def _layers(network: Network, graph: Graph, head: _Head) -> dict[str, Any]:
    """Trunk, extra levels, and the kind of the predictions."""
    outputs = [layer.output for layer in network.chain]
    ends = [outputs.index(one.source) + 1 if one.source in outputs else 0 for one in network.boxes]
    if len(ends) < 2 or ends != sorted(set(ends)) or not ends[0] or ends[-1] != len(outputs):
        raise UserError("the maps that predict are not along the path of the trunk, from fine to coarse: not an SSD")
    backbone, options = trunk_of(network.chain[: ends[1]], graph)
    extras = [network.chain[start:end] for start, end in pairwise(ends[1:])]
    kinds = {len(level) for level in extras}
    channels = [graph.shapes[level[-1].weight][0] for level in extras]
    if not kinds <= {2} and not kinds <= {3}:
        raise UserError(f"the extra levels have {[len(level) for level in extras]} convolutions; expected 2 or 3 each")
    predictors = [*network.boxes, *network.scores]
    separable = {len(one.layers) for one in predictors}
    kernels = {graph.shapes[one.layers[-1].weight][1] for one in predictors}
    if len(separable) > 1 or len(kernels) > 1 or not kernels <= {1, 3}:
        raise UserError(
            f"the predicting convolutions have kernels {sorted(kernels)}; expected the same for all, 1 or 3"
        )
    return {
        "backbone": backbone,
        "backbone_options": options,
        "finest_stride": 16,
        "extra_channels": channels,
        "separable_extras": kinds == {3},
        "activation": "relu6",
        **({"separable_heads": True} if separable == {2} else {"head_kernel": kernels.pop()}),
    }


def _boxes(network: Network, graph: Graph, head: _Head, anchors: Tensor | None) -> dict[str, Any]:
    if anchors is None:
        return {"box_shapes": published_shapes(head.per_cell)}
    _, height, width, _ = graph.shapes[network.input]
    return {"box_shapes": shapes_of_anchors(anchors, (height, width), head.maps, head.per_cell)}


def _kernel(layer: Layer, source: Source) -> tuple[Tensor, Tensor]:
    """Kernel [outputs, inputs, height, width] and bias of a layer."""
    for name in (layer.weight, layer.bias):
        if name not in source.tensors:
            raise UserError(f"{name} is computed, expected a constant")
    kernel, bias = source.tensors[layer.weight], source.tensors[layer.bias]
    if kernel.ndim != 4:
        raise UserError(f"{layer.weight} is {tuple(kernel.shape)}, expected a kernel of four sides")
    return kernel.permute(3, 0, 1, 2) if layer.depthwise else kernel.permute(0, 3, 1, 2), bias


def _filled(
    layers: Sequence[Layer], own: Sequence[Place], kernels: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    if len(layers) != len(own):
        raise UserError(f"the network has {len(layers)} convolutions on its path, expected {len(own)}")
    given: dict[str, Tensor] = {}
    for layer, place, (kernel, bias) in zip(layers, own, kernels, strict=True):
        if problem := place.differs(kernel, bias, layer.stride, layer.activation):
            raise UserError(f"the layer {layer.weight} {problem}")
        given |= place.filled(kernel, bias)
    return given
