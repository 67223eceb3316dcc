"""Small `.tflite` files of the published layouts, and a plain slow execution of what they compute.

A `Net` is written down once as a list of steps. `save` writes it with the format's own schema; `run` executes the steps
with the numbers that the file's bits stand for. Nothing of the package is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite
import torch
import torch.nn.functional as F
from flatbuffers import flexbuffers
from torch import Tensor

ACTIVATIONS = {None: 0, "relu": 1, "relu6": 3}
TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}


@dataclass
class Stored:
    """A tensor of a file: its shape, type, bytes (none if it is computed), scales, zero points and their axis."""

    name: str
    shape: tuple[int, ...]
    type: str = "float32"
    values: np.ndarray | None = None
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None
    axis: int = 0


@dataclass
class Step:
    """An operator."""

    kind: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, Any] = field(default_factory=dict)


class Net:
    """A network under construction. `storage`: float32, float16 (and a DEQUANTIZE each), uint8 or int8."""

    def __init__(self, size: tuple[int, int], *, storage: str = "float32", seed: int = 0) -> None:
        self.tensors: list[Stored] = []
        self.steps: list[Step] = []
        self.values: dict[int, Tensor] = {}  # of the constants, as the bits say
        self.storage, self.random = storage, np.random.default_rng(seed)
        self.pixels = self.computed((1, *size, 3), "input")
        self.outputs: list[int] = []  # of `run`
        self.ends: list[int] = []  # of the file, where they are others
        self.shared = False  # whether constants of the same shape have the same bytes

    @property
    def eight(self) -> bool:
        return self.storage in ("uint8", "int8")

    def computed(self, shape: Sequence[int], name: str = "", *, whole: bool = True) -> int:
        """A tensor that is computed; in a network of 8 bits it has a scale."""
        kind = self.storage if self.eight and whole else "float32"
        zero = {"uint8": 128, "int8": 0}.get(kind)
        scale = None if zero is None else np.array([1 / 128], np.float32)
        zeros = None if zero is None else np.array([zero])
        self.tensors.append(Stored(name or f"map {len(self.tensors)}", tuple(shape), kind, None, scale, zeros))
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray, *, axis: int = 0, bias: bool = False) -> int:
        """Weights in the storage of the network; a float16 one is followed by its DEQUANTIZE."""
        name, shape = f"weights {len(self.tensors)}", values.shape
        scale: np.ndarray | None = None
        zero: np.ndarray | None = None
        if bias and self.eight:
            scale, zero, kind = np.array([1e-4], np.float32), np.array([0]), "int32"
            stored = np.round(values / 1e-4).astype(np.int32)
        elif self.storage == "uint8":
            scale, zero, kind = np.array([np.ptp(values) / 255 + 1e-6], np.float32), np.array([120]), "uint8"
            stored = np.clip(np.round(values / scale) + zero, 0, 255).astype(np.uint8)
        elif self.storage == "int8":
            others = tuple(side for side in range(values.ndim) if side != axis)
            scale = (np.abs(values).max(others) / 127 + 1e-6).astype(np.float32)
            zero, kind = np.zeros(len(scale), np.int64), "int8"
            sides = [-1 if side == axis else 1 for side in range(values.ndim)]
            stored = np.round(values / scale.reshape(sides)).astype(np.int8)
        else:
            kind = self.storage
            stored = values.astype(kind)
        self.tensors.append(Stored(name, shape, kind, stored, scale, zero, axis))
        index, real = len(self.tensors) - 1, stored.astype(np.float64)
        if scale is not None and zero is not None:
            sides = [-1 if side == axis and len(scale) > 1 else 1 for side in range(values.ndim)]
            real = (real - zero.reshape(sides)) * scale.astype(np.float64).reshape(sides)
        if kind == "float16":
            self.tensors.append(Stored(f"{name}_dequantize", shape))
            self.steps.append(Step("DEQUANTIZE", [index], [index + 1]))
            index += 1
        self.values[index] = torch.from_numpy(real).float()
        return index

    def plain(self, values: Sequence[int]) -> int:
        self.tensors.append(Stored(f"shape {len(self.tensors)}", (len(values),), "int32", np.array(values, np.int32)))
        return len(self.tensors) - 1

    def anchors(self, values: np.ndarray) -> int:
        """A constant of floats, in every storage."""
        self.tensors.append(Stored("anchors", values.shape, "float32", values.astype(np.float32)))
        return len(self.tensors) - 1

    def conv(
        self, source: int, outputs: int, kernel: int = 1, *, stride: int = 1, activation: str | None = "relu6",
        depthwise: bool = False,
    ) -> int:  # fmt: skip
        """A convolution with SAME padding and random weights."""
        _, height, width, inputs = self.tensors[source].shape
        outputs = inputs if depthwise else outputs
        shape = (1, kernel, kernel, inputs) if depthwise else (outputs, kernel, kernel, inputs)
        fan_in = kernel * kernel * (1 if depthwise else inputs)
        weight = self.constant(self.random.normal(0, (2 / fan_in) ** 0.5, shape), axis=3 if depthwise else 0)
        bias = self.constant(self.random.normal(0, 0.3, outputs), bias=True)
        made = self.computed((1, -(-height // stride), -(-width // stride), outputs))
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        self.steps.append(Step(kind, [source, weight, bias], [made], {"stride": stride, "activation": activation}))
        return made

    def step(self, kind: str, inputs: Sequence[int], shape: Sequence[int], **options: Any) -> int:
        made = self.computed(shape)
        self.steps.append(Step(kind, list(inputs), [made], options))
        return made

    def add(self, first: int, second: int) -> int:
        return self.step("ADD", [first, second], self.tensors[first].shape, activation=None)

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        return self.step("RESHAPE", [source, self.plain(shape)], shape)

    def join(self, parts: Sequence[int]) -> int:
        shapes = [self.tensors[part].shape for part in parts]
        return self.step("CONCATENATION", parts, (1, sum(shape[1] for shape in shapes), *shapes[0][2:]), axis=1)

    def run(self, pixels: Tensor) -> list[Tensor]:
        """Pixels [1, H, W, 3] as the network takes them -> its outputs, with nothing clamped to 8 bits."""
        found = {**self.values, self.pixels: pixels}
        for step in self.steps:
            if step.kind == "DEQUANTIZE" and step.inputs[0] not in found:
                continue  # of a constant
            first = found[step.inputs[0]]
            shape = self.tensors[step.outputs[0]].shape
            if step.kind in ("QUANTIZE", "DEQUANTIZE"):
                made = first
            elif step.kind == "ADD":
                made = first + found[step.inputs[1]]
            elif step.kind == "RESHAPE":
                made = first.reshape(shape)
            elif step.kind == "CONCATENATION":
                made = torch.cat([found[part] for part in step.inputs], step.options["axis"])
            elif step.kind == "LOGISTIC":
                made = first.sigmoid()
            elif step.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                made = _convolved(step, first, found[step.inputs[1]], found[step.inputs[2]])
            else:
                continue  # post-processing
            assert made.shape == shape, (step, made.shape, shape)
            found[step.outputs[0]] = made
        return [found[name] for name in self.outputs]

    def save(self, path: Path) -> Path:
        """The file, written with the schema of the format."""
        path.write_bytes(self.content())
        return path

    def content(self) -> bytes:
        """The bytes of the file."""
        return _bytes(self)


def _convolved(step: Step, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """TensorFlow's convolution with SAME padding, on maps [1, H, W, C]."""
    stride, maps = step.options["stride"], source.permute(0, 3, 1, 2)
    depthwise = step.kind.startswith("DEPTHWISE")
    kernel = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
    zeros: list[int] = []
    for size in (maps.shape[3], maps.shape[2]):  # the last side first
        total = max((math.ceil(size / stride) - 1) * stride + kernel.shape[-1] - size, 0)
        zeros += [total // 2, total - total // 2]
    made = F.conv2d(F.pad(maps, zeros), kernel, bias, stride, groups=maps.shape[1] if depthwise else 1)
    made = made.clamp(0, 6) if step.options["activation"] == "relu6" else made
    return made.permute(0, 2, 3, 1)


# ------------------------------------------------------------------ networks of the Object Detection API
def rounded(channels: float, least: int) -> int:
    """The API's rule for MobileNetV2: to a multiple of 8, not more than a tenth below."""
    made = max(least, int(channels + 4) // 8 * 8)
    return made + 8 if made < 0.9 * channels else made


def mobilenet_v2(net: Net, width: float, least: int) -> list[int]:
    """The expansion of the 13th block, and the last layer."""
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    features = net.conv(net.pixels, rounded(32 * width, least), 3, stride=2)
    maps = []
    for row, (expansion, channels, blocks, first) in enumerate(rows):
        for number in range(blocks):
            before, inputs = features, net.tensors[features].shape[3]
            if expansion > 1:
                features = net.conv(features, inputs * expansion)
                maps += [features] if (row, number) == (5, 0) else []
            stride = first if number == 0 else 1
            features = net.conv(features, 0, 3, stride=stride, depthwise=True)
            features = net.conv(features, rounded(channels * width, least), activation=None)
            if stride == 1 and net.tensors[features].shape[3] == inputs:
                features = net.add(before, features)
    return [*maps, net.conv(features, rounded(1280 * width, least))]


def mobilenet_v1(net: Net, width: float, least: int) -> list[int]:
    """The layers of 512 and of 1024 channels."""
    layers = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    features = net.conv(net.pixels, max(int(32 * width), least), 3, stride=2)
    made = []
    for channels, stride in layers:
        features = net.conv(features, 0, 3, stride=stride, depthwise=True)
        features = net.conv(features, max(int(channels * width), least))
        made.append(features)
    return [made[10], made[12]]


def anchors_of(sizes: Sequence[tuple[int, int]], ratio: float = 0.3333) -> np.ndarray:
    """The API's anchors by its words, one by one: (y, x, height, width), shares of a square image."""
    scales = [0.2 + (0.95 - 0.2) * k / (len(sizes) - 1) for k in range(len(sizes))] + [1.0]
    rows = []
    for level, (height, width) in enumerate(sizes):
        if level == 0:
            boxes = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
        else:
            boxes = [(scales[level], one) for one in (1.0, 2.0, 0.5, 3.0, ratio)]
            boxes.append((math.sqrt(scales[level] * scales[level + 1]), 1.0))
        for y in range(height):
            for x in range(width):
                for scale, one in boxes:
                    rows.append(((y + 0.5) / height, (x + 0.5) / width, scale / one**0.5, scale * one**0.5))
    return np.array(rows)


def ssd(
    *,
    trunk: str = "v2",
    size: tuple[int, int] = (96, 96),
    width: float = 0.125,
    least: int = 8,
    classes: int = 2,
    extras: Sequence[int] = (16, 8),
    lite: bool = False,
    kernel: int = 1,
    storage: str = "float32",
    ending: str = "raw",
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> Net:
    """A detector. `ending`: raw, or post (sigmoid, anchors and TFLite_Detection_PostProcess with `options`).

    Its `outputs` are the box codes and the scores, as logits.
    """
    net = Net(size, storage=storage, seed=seed)
    maps = (mobilenet_v2 if trunk == "v2" else mobilenet_v1)(net, width, least)
    for channels in extras:
        features = net.conv(maps[-1], channels // 2)
        if lite:
            features = net.conv(net.conv(features, 0, 3, stride=2, depthwise=True), channels)
        else:
            features = net.conv(features, channels, 3, stride=2)
        maps.append(features)
    boxes, scores = [], []
    for level, source in enumerate(maps):
        _, rows, columns, _ = net.tensors[source].shape
        count = 3 if level == 0 else 6
        for numbers, made, form in ((4, boxes, (1, 4)), (classes + 1, scores, (classes + 1,))):
            read = net.conv(source, 0, 3, depthwise=True) if lite else source
            found = net.conv(read, count * numbers, 1 if lite else kernel, activation=None)
            made.append(net.reshape(found, (1, rows * columns * count, *form)))
    joined = net.join(boxes)
    codes = net.reshape(joined, (1, net.tensors[joined].shape[1], 4))
    logits = net.join(scores)
    net.tensors[codes].name, net.tensors[logits].name = "raw_outputs/box_encodings", "raw_outputs/class_predictions"
    net.outputs = [codes, logits]
    if ending == "post":
        anchors = net.anchors(anchors_of([net.tensors[one].shape[1:3] for one in maps]))
        probabilities = net.step("LOGISTIC", [logits], net.tensors[logits].shape)
        settings = {
            "max_detections": 10, "nms_score_threshold": 0.3, "nms_iou_threshold": 0.6, "num_classes": classes,
            "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0, **(options or {}),
        }  # fmt: skip
        ends = [net.computed(shape, whole=False) for shape in ((1, 10, 4), (1, 10), (1, 10), (1,))]
        net.steps.append(Step("TFLite_Detection_PostProcess", [codes, probabilities, anchors], ends, settings))
        net.ends = ends
    return net


# ------------------------------------------------------------------ the file
def _bytes(net: Net) -> bytes:
    builder = flatbuffers.Builder(1 << 16)
    buffers = [_table(builder, "Buffer")]
    tensors = []
    shared: dict[tuple[int, ...], int] = {}
    for one in net.tensors:
        buffer = shared.get(one.shape, 0) if one.values is not None else 0
        if one.values is not None and not buffer:
            data = builder.CreateByteVector(one.values.tobytes())
            buffers.append(_table(builder, "Buffer", Data=data))
            buffer = len(buffers) - 1
            shared |= {one.shape: buffer} if net.shared else {}
        quantisation = None
        if one.scale is not None and one.zero is not None:
            scale, zero = builder.CreateNumpyVector(one.scale), builder.CreateNumpyVector(one.zero.astype(np.int64))
            quantisation = _table(builder, "QuantizationParameters", Scale=scale, ZeroPoint=zero,
                                  QuantizedDimension=one.axis)  # fmt: skip
        name = builder.CreateString(one.name)
        shape = builder.CreateNumpyVector(np.array(one.shape, np.int32))
        more = {} if quantisation is None else {"Quantization": quantisation}
        tensors.append(_table(builder, "Tensor", Name=name, Shape=shape, Type=TYPES[one.type], Buffer=buffer, **more))
    codes: dict[str, int] = {}
    kinds = []
    operators = []
    for step in net.steps:
        if step.kind not in codes:
            codes[step.kind] = len(codes)
            number = getattr(tflite.BuiltinOperator, step.kind, tflite.BuiltinOperator.CUSTOM)
            word = {} if hasattr(tflite.BuiltinOperator, step.kind) else {"CustomCode": builder.CreateString(step.kind)}
            kinds.append(
                _table(builder, "OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, **word)
            )
        fields: dict[str, Any] = {}
        if "CONV_2D" in step.kind:
            kind = "DepthwiseConv2DOptions" if step.kind.startswith("DEPTHWISE") else "Conv2DOptions"
            stride, activation = step.options["stride"], ACTIVATIONS[step.options["activation"]]
            more = {"DepthMultiplier": 1} if kind.startswith("Depthwise") else {}
            fields["BuiltinOptions"] = _table(
                builder, kind, Padding=0, StrideH=stride, StrideW=stride, FusedActivationFunction=activation,
                DilationHFactor=1, DilationWFactor=1, **more,
            )  # fmt: skip
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, kind)
        elif step.kind == "TFLite_Detection_PostProcess":
            fields["CustomOptions"] = builder.CreateByteVector(bytes(flexbuffers.Dumps(step.options)))
        inputs = builder.CreateNumpyVector(np.array(step.inputs, np.int32))
        outputs = builder.CreateNumpyVector(np.array(step.outputs, np.int32))
        operators.append(
            _table(builder, "Operator", OpcodeIndex=codes[step.kind], Inputs=inputs, Outputs=outputs, **fields)
        )
    ends = net.ends or net.outputs
    graph = _table(
        builder, "SubGraph", Tensors=_vector(builder, tensors), Operators=_vector(builder, operators),
        Inputs=builder.CreateNumpyVector(np.array([net.pixels], np.int32)),
        Outputs=builder.CreateNumpyVector(np.array(ends, np.int32)),
    )  # fmt: skip
    model = _table(
        builder, "Model", Version=3, OperatorCodes=_vector(builder, kinds), Subgraphs=_vector(builder, [graph]),
        Buffers=_vector(builder, buffers),
    )  # fmt: skip
    builder.Finish(model, b"TFL3")
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, kind: str, **fields: Any) -> int:
    getattr(tflite, f"{kind}Start")(builder)
    for name, value in fields.items():
        getattr(tflite, f"{kind}Add{name}")(builder, value)
    return int(getattr(tflite, f"{kind}End")(builder))


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
