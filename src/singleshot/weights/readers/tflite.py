"""Reads `.tflite` files: the constant tensors, as float32, and the operators that use them as a note.

The schema's own classes come from the package `tflite`. It trusts the bytes, so lengths are checked here before they
are counted to, and whatever a damaged file makes it raise becomes one error.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.source import Source

TITLE = "a TensorFlow Lite file"
GRAPH = "tflite_graph"
"""The note with the file's `Graph`."""

_MOST = 20_000  # operators, tensors or buffers of a file; detectors have some hundred
_LARGEST_OPTIONS = 65_536  # bytes of the options of an operator
_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1", 10: "<f8"}
_FLOATS = (0, 1, 10)
_OPTIONS = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "ADD": "AddOptions"}
_FIELDS = {
    "padding": "Padding", "stride": "StrideH", "stride_x": "StrideW", "dilation": "DilationHFactor",
    "multiplier": "DepthMultiplier", "activation": "FusedActivationFunction",
}  # fmt: skip
_PADDINGS = {0: "SAME", 1: "VALID"}
_ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}


@dataclass(frozen=True)
class Operator:
    """One step of a graph."""

    kind: str
    """The schema's name, such as CONV_2D, or the name of a custom operator."""
    inputs: tuple[str, ...]
    """Names of tensors; an input that is left out is not among them."""
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """padding, stride, stride_x, dilation, multiplier and activation, where the kind has them; or custom options."""


@dataclass(frozen=True)
class Graph:
    """What a file computes. Constants that are only converted to float are constants: the conversion is left out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[Operator, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of every tensor, also those that are computed."""
    quantised: Mapping[str, tuple[float, int]]
    """Scale, and zero counted from the smallest number, of the 8-bit tensors that are computed."""


def recognises(start: bytes) -> bool:
    """The mark of the format, after the offset of the root."""
    return start[4:8] == b"TFL3"


def read(path: Path) -> Source:
    """The constants, and a `Graph`."""
    try:
        schema = importlib.import_module("tflite")
    except ImportError as error:
        raise UserError(f"{path}: reading it needs the package tflite: pip install 'singleshot[tflite]'") from error
    content = path.read_bytes()
    try:
        file = _File(schema, content)
        return Source(*file.read(), f"{path}: ")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # with damaged bytes the schema's classes may raise any exception
        raise UserError(f"{path}: the file is damaged: its tables lead nowhere; use another one") from error


class _File:
    """A file, while it is read."""

    def __init__(self, schema: Any, content: bytes) -> None:
        self.schema = schema
        self.size = len(content)
        self.model = schema.Model.GetRootAs(content, 0)
        graphs = self.model.SubgraphsLength()
        if graphs != 1:
            raise UserError(f"the file has {graphs} graphs; expected one: the graph of a detector")
        self.graph = self.model.Subgraphs(0)
        counts = (self.graph.TensorsLength(), self.graph.OperatorsLength(), self.model.BuffersLength())
        if max(*counts, self.model.OperatorCodesLength()) > _MOST:
            raise UserError(f"the file has {max(counts):,} tensors or operators; expected at most {_MOST:,}")
        tensors = [self.graph.Tensors(index) for index in range(counts[0])]
        names = [(tensor.Name() or b"").decode(errors="replace") for tensor in tensors]
        often = Counter(names)
        self.names = [name if often[name] == 1 and name else f"{name}#{k}" for k, name in enumerate(names)]
        self.tensors = dict(zip(self.names, tensors, strict=True))
        self.given = 0  # numbers of the tensors that were read

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        operators = [self._operator(index) for index in range(self.graph.OperatorsLength())]
        constants = {name for name in self.tensors if self._buffer(name) is not None}
        # A constant in few bits, and the operator that makes float32 of it, are one constant.
        floats = {
            one.outputs[0]: one.inputs[0]
            for one in operators
            if one.kind == "DEQUANTIZE" and len(one.inputs) == len(one.outputs) == 1 and one.inputs[0] in constants
        }
        kept = [
            Operator(one.kind, tuple(floats.get(name, name) for name in one.inputs), one.outputs, one.options)
            for one in operators
            if not set(one.outputs) & set(floats)
        ]
        used = dict.fromkeys(name for one in kept for name in one.inputs if name in constants)
        graph = Graph(
            self._some_names(self.graph.InputsAsNumpy()),
            self._some_names(self.graph.OutputsAsNumpy()),
            tuple(kept),
            {name: self._shape(name) for name in self.tensors},
            {name: found for name in self.tensors if name not in constants and (found := self._eight_bits(name))},
        )
        return {name: self._constant(name) for name in used}, {GRAPH: graph}

    def _some_names(self, indices: Any) -> tuple[str, ...]:
        numbers = [int(index) for index in np.atleast_1d(indices)]
        if any(not -1 <= number < len(self.names) for number in numbers):
            raise UserError("the file is damaged (an operator reads a tensor that is not there); use another one")
        return tuple(self.names[number] for number in numbers if number >= 0)

    def _operator(self, index: int) -> Operator:
        operator = self.graph.Operators(index)
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        known = {value: name for name, value in vars(self.schema.BuiltinOperator).items() if isinstance(value, int)}
        kind = known.get(number, f"operator {number}")
        options: dict[str, Any] = {}
        if kind == "CUSTOM":
            kind = (code.CustomCode() or b"").decode(errors="replace") or kind
            options = self._custom_options(operator)
        elif kind in _OPTIONS and (table := operator.BuiltinOptions()) is not None:
            given = getattr(self.schema, _OPTIONS[kind])()
            given.Init(table.Bytes, table.Pos)
            options = {name: getattr(given, field)() for name, field in _FIELDS.items() if hasattr(given, field)}
            if "padding" in options:
                options["padding"] = _PADDINGS.get(options["padding"], str(options["padding"]))
            options["activation"] = _ACTIVATIONS.get(options["activation"], str(options["activation"]))
        read = () if operator.InputsIsNone() else self._some_names(operator.InputsAsNumpy())
        made = () if operator.OutputsIsNone() else self._some_names(operator.OutputsAsNumpy())
        return Operator(kind, read, made, options)

    def _custom_options(self, operator: Any) -> dict[str, Any]:
        if operator.CustomOptionsIsNone() or operator.CustomOptionsLength() > _LARGEST_OPTIONS:
            return {}
        flexbuffers = importlib.import_module("flatbuffers.flexbuffers")
        found = flexbuffers.Loads(operator.CustomOptionsAsNumpy().tobytes())
        return found if isinstance(found, dict) else {}

    def _shape(self, name: str) -> tuple[int, ...]:
        tensor = self.tensors[name]
        return () if tensor.ShapeIsNone() else tuple(int(side) for side in np.atleast_1d(tensor.ShapeAsNumpy()))

    def _buffer(self, name: str) -> Any:
        """The bytes of a constant; None for a tensor that is computed."""
        index = self.tensors[name].Buffer()
        if not 0 < index < self.model.BuffersLength():
            return None
        buffer = self.model.Buffers(index)
        return None if buffer.DataIsNone() or not buffer.DataLength() else buffer.DataAsNumpy()

    def _constant(self, name: str) -> Tensor:
        tensor, shape, kind = self.tensors[name], self._shape(name), self.tensors[name].Type()
        if kind not in _TYPES:
            raise UserError(f"{name} has numbers of the type {kind} of the format; expected floats or whole numbers")
        if tensor.Sparsity() is not None:
            raise UserError(f"{name} is stored as a sparse tensor; convert the model without sparsity")
        raw = self._buffer(name).tobytes()
        values = np.frombuffer(raw, _TYPES[kind])
        if min(shape, default=1) < 0 or math.prod(shape) != len(values):
            raise UserError(f"{name} has {len(values):,} numbers, expected those of {shape}: the file is damaged")
        self.given += len(values)
        if self.given > self.size:
            raise UserError("the file is damaged (many tensors share their bytes); use another one")
        values = values.reshape(shape)
        if kind in _FLOATS:
            return torch.from_numpy(values.astype(np.float32))
        scale, zero, axis = self._quantisation(name)
        if not len(scale):
            return torch.from_numpy(values.astype(np.int64))
        if len(scale) > 1:
            sides = [1] * len(shape)
            sides[axis] = -1
            scale, zero = scale.reshape(sides), zero.reshape(sides)
        return torch.from_numpy(((values.astype(np.float64) - zero) * scale).astype(np.float32))

    def _quantisation(self, name: str) -> tuple[Any, Any, int]:
        """Scales and zero points, one for the tensor or one for each channel, and the axis of the channels."""
        found = self.tensors[name].Quantization()
        if found is None or found.ScaleIsNone() or not found.ScaleLength():
            return np.zeros(0), np.zeros(0), 0
        scale = found.ScaleAsNumpy().astype(np.float64)
        zero = np.zeros(1) if found.ZeroPointIsNone() else found.ZeroPointAsNumpy().astype(np.float64)
        shape, axis = self._shape(name), found.QuantizedDimension()
        if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
            raise UserError(f"{name} has {len(scale)} scales, which fit none of its sides {shape}: the file is damaged")
        return scale, np.broadcast_to(zero, scale.shape), axis

    def _eight_bits(self, name: str) -> tuple[float, int] | None:
        lowest = {"u1": 0, "i1": -128}.get(_TYPES.get(self.tensors[name].Type(), ""))
        if lowest is None:
            return None
        scale, zero, _ = self._quantisation(name)
        return (float(scale[0]), int(zero[0]) - lowest) if len(scale) == 1 else None
