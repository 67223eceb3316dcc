"""Reads Caffe's `.caffemodel` files, without Caffe: a NetParameter in the wire format of protobuf.

Only the fields that are asked for are read, in a fixed depth, so a file cannot ask for more. Numbers go from the file
straight into the tensors: the memory is that of the tensors.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from singleshot.errors import UserError, short
from singleshot.source import Source

TITLE = "a .caffemodel of Caffe"

Schema = Mapping[int, tuple[str, Any]]
"""Number of a field -> its name, and its kind: int, bool, float, str, a schema, or a list with one of them."""

_SIZE: Schema = {3: ("height", int), 4: ("width", int)}
_TRANSFORM: Schema = {
    1: ("scale", float),
    4: ("mean_file", str),
    5: ("mean_value", [float]),
    8: ("resize_param", _SIZE),
}
_SHAPE: Schema = {1: ("dim", [int])}
_CONVOLUTION: Schema = {
    1: ("num_output", int), 3: ("pad", [int]), 4: ("kernel_size", [int]), 5: ("group", int), 6: ("stride", [int]),
    18: ("dilation", [int]),
}  # fmt: skip
_POOLING: Schema = {1: ("pool", int), 2: ("kernel_size", int), 3: ("stride", int), 4: ("pad", int)}
_PRIOR_BOX: Schema = {
    1: ("min_size", [float]), 2: ("max_size", [float]), 3: ("aspect_ratio", [float]), 4: ("flip", bool),
    5: ("clip", bool), 6: ("variance", [float]), 7: ("img_size", int), 8: ("img_h", int), 9: ("img_w", int),
    10: ("step", float), 11: ("step_h", float), 12: ("step_w", float), 13: ("offset", float),
}  # fmt: skip
_NMS: Schema = {1: ("nms_threshold", float), 2: ("top_k", int), 3: ("eta", float)}
_DETECTION_OUTPUT: Schema = {
    1: ("num_classes", int), 2: ("share_location", bool), 3: ("background_label_id", int), 4: ("nms_param", _NMS),
    6: ("code_type", int), 7: ("keep_top_k", int), 8: ("variance_encoded_in_target", bool),
    9: ("confidence_threshold", float), 24: ("objectness_score", float),
}  # fmt: skip
_LAYER: Schema = {
    1: ("name", str), 2: ("type", str),
    100: ("transform_param", _TRANSFORM), 106: ("convolution_param", _CONVOLUTION), 121: ("pooling_param", _POOLING),
    139: ("batch_norm_param", {3: ("eps", float)}), 143: ("input_param", {1: ("shape", [_SHAPE])}),
    203: ("prior_box_param", _PRIOR_BOX), 204: ("detection_output_param", _DETECTION_OUTPUT),
    206: ("norm_param", {1: ("across_spatial", bool), 3: ("channel_shared", bool), 4: ("eps", float)}),
}  # fmt: skip
_OLD_LAYER: Schema = {
    4: ("name", str), 5: ("type", int), 10: ("convolution_param", _CONVOLUTION), 19: ("pooling_param", _POOLING),
    36: ("transform_param", _TRANSFORM),
}  # fmt: skip
_NET: Schema = {1: ("name", str), 4: ("input_dim", [int]), 8: ("input_shape", [_SHAPE])}
# Fields that hold layers, with the layer's schema and its field of blobs: the present form, and that of before 2014.
_LAYERS: Mapping[int, tuple[Schema, int]] = {100: (_LAYER, 7), 2: (_OLD_LAYER, 6)}
_OLD_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}

_AFTER_NAME = (b"\x12", b"\x1a", b"\x20", b"\x22", b"\x28", b"\x32", b"\x38", b"\x42")  # keys of a net's other fields

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which Caffe never had
_NUMBERS = {5: (_FOUR, "<f4"), 8: (_EIGHT, "<f8")}  # fields of a blob: data, double_data
_MOST_FIELDS = 500_000  # of a file; RefineDet's on ResNet-101 has 13 thousand
_MOST_TEXT, _MOST_LIST = 1_000, 10_000  # bytes
_MOST_SIDES = 32  # dimensions of a blob (Caffe's own limit)
_EPSILON = 1e-5  # of our batch norm, and of Caffe's if nothing is said
_RUN = 256  # numbers of an unpacked run that are looked at first


def recognises(start: bytes) -> bool:
    """The name of the net as text, or none, and then a layer or the net's inputs."""
    position = 0
    if start[:1] == b"\x0a":
        length = next((k for k in range(1, 3) if k < len(start) and start[k] < 128), 0)
        if not length:
            return False
        position = 1 + length + sum((start[1 + k] & 127) << 7 * k for k in range(length))
        if any(byte < 32 for byte in start[1 + length : position]):
            return False
        if position >= len(start):
            return position > len(start)
    return start[position : position + 2] == b"\xa2\x06" or start[position : position + 1] in _AFTER_NAME


def read(path: Path) -> Source:
    """The blobs of all layers, and what the net says about them.

    A tensor is called LAYER.weight or LAYER.bias; of a BatchNorm layer, LAYER.running_mean or LAYER.running_var, with
    the layer's own factor and epsilon worked in, so that they mean what ours mean. Notes: "net" (its name and inputs)
    and "layers" (name -> type and settings, with Caffe's names).
    """
    where = f"{path}: "
    with path.open("rb") as file:
        data = _File(file, os.fstat(file.fileno()).st_size, where)
        tensors: dict[str, Tensor] = {}
        layers: dict[str, dict[str, Any]] = {}
        for number, wire, begin, end in data.fields(0, data.size):
            if number in _LAYERS and wire == _BYTES:
                schema, blobs = _LAYERS[number]
                layer = data.message(begin, end, schema)
                name, kind = layer.pop("name", ""), layer.get("type", "")
                layer["type"] = kind = _OLD_TYPES.get(kind, str(kind))
                found = [
                    data.blob(first, last, name)
                    for field_, wire, first, last in data.fields(begin, end)
                    if field_ == blobs and wire == _BYTES
                ]
                layers[name] = layer
                epsilon = layer.get("batch_norm_param", {}).get("eps", _EPSILON)
                tensors |= {f"{name}.{key}": value for key, value in _named(kind, found, epsilon).items()}
        net = data.message(0, data.size, _NET)
    if not tensors:
        raise UserError(f"{where}no layer of this {TITLE[2:]} has weights; give the file that Caffe's training writes")
    return Source(tensors, {"net": net, "layers": layers}, where)


def _named(kind: str, blobs: list[Tensor], epsilon: float) -> dict[str, Tensor]:
    """The blobs of a layer by name."""
    if kind == "BatchNorm" and len(blobs) == 3 and blobs[2].numel() == 1:
        # Both are sums over a moving window, and the third blob is the window's weight; 0: nothing was ever summed.
        weight = float(blobs[2])
        mean, variance = (blob / weight if weight else torch.zeros_like(blob) for blob in blobs[:2])
        return {"running_mean": mean, "running_var": variance + (epsilon - _EPSILON)}
    names = ["weight", "bias", *map(str, range(2, len(blobs)))]
    return dict(zip(names, blobs, strict=False))


@dataclass
class _File:
    """A file in protobuf's wire format. Positions are bytes from its start."""

    file: BinaryIO
    size: int
    where: str
    left: int = field(default_factory=lambda: _MOST_FIELDS)  # fields that may still be read

    def broken(self, what: str, position: int) -> UserError:
        return UserError(
            f"{self.where}damaged, or not {TITLE}: {what} at byte {position:,} of {self.size:,}; take another copy "
            "of it"
        )

    def fields(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(number, wire type, first byte, byte after the last) of each field of a message."""
        position = begin
        while position < end:
            number, wire, first, position = self.one(position, end)
            yield number, wire, first, position

    def one(self, position: int, end: int) -> tuple[int, int, int, int]:
        """The field at a position: number, wire type, first byte of the content, and the byte after it."""
        self.left -= 1
        if self.left < 0:
            raise self.broken(f"more than {_MOST_FIELDS:,} fields", position)
        key, first = self.varint(position, end)
        wire = key & 7
        if wire == _VARINT:
            last = self.varint(first, end)[1]
        elif wire == _BYTES:
            length, first = self.varint(first, end)
            last = first + length
        elif wire in (_FOUR, _EIGHT):
            last = first + (4 if wire == _FOUR else 8)
        else:
            raise self.broken(f"a field of the unknown kind {wire}", position)
        if last > end or not key >> 3:
            raise self.broken("a field that is longer than what contains it" if key >> 3 else "no field", position)
        return key >> 3, wire, first, last

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """A whole number of variable length, and the byte after it."""
        value = 0
        for count, byte in enumerate(self.bytes(position, min(end, position + 10))):
            value |= (byte & 127) << 7 * count
            if byte < 128:
                return value, position + count + 1
        raise self.broken("a number without an end", position)

    def bytes(self, begin: int, end: int) -> bytes:
        self.file.seek(begin)
        return self.file.read(end - begin)

    def numbers(self, begin: int, count: int, kind: str) -> NDArray[Any]:
        """Numbers that lie one after the other."""
        self.file.seek(begin)
        found = np.fromfile(self.file, kind, count)
        if len(found) != count:
            raise self.broken("the end of the file", begin)
        return found

    def message(self, begin: int, end: int, schema: Schema) -> dict[str, Any]:
        """The fields of a message that a schema names."""
        found: dict[str, Any] = {}
        for number, wire, first, last in self.fields(begin, end):
            if number not in schema:
                continue
            name, kind = schema[number]
            if isinstance(kind, list):
                found.setdefault(name, []).extend(self.several(kind[0], wire, first, last))
            else:
                found[name] = self.value(kind, wire, first, last)
        return found

    def several(self, kind: Any, wire: int, first: int, last: int) -> list[Any]:
        """One more value of a list, or many that are packed."""
        if wire != _BYTES or kind not in (int, float):
            return [self.value(kind, wire, first, last)]
        if last - first > _MOST_LIST:
            raise self.broken("a list that is too long", first)
        if kind is float:
            return [self.value(float, _FOUR, at, min(at + 4, last)) for at in range(first, last, 4)]
        values = []
        while first < last:
            value, first = self.varint(first, last)
            values.append(_signed(value))
        return values

    def value(self, kind: Any, wire: int, first: int, last: int) -> Any:
        expected = _FOUR if kind is float else _VARINT if kind in (int, bool) else _BYTES
        if wire != expected or (kind is float and last - first != 4):
            raise self.broken("a field of another kind than Caffe's", first)
        if isinstance(kind, Mapping):
            return self.message(first, last, kind)
        if kind is float:  # the shortest decimal number that is this one in 32 bits
            return float(str(np.frombuffer(self.bytes(first, last), "<f4")[0]))
        if kind is str:
            if last - first > _MOST_TEXT:
                raise self.broken("a name that is too long", first)
            try:
                return self.bytes(first, last).decode()
            except UnicodeDecodeError:
                raise self.broken("a name that is no text", first) from None
        value = _signed(self.varint(first, last)[0])
        return bool(value) if kind is bool else value

    def blob(self, begin: int, end: int, layer: str) -> Tensor:
        """The tensor of a BlobProto."""
        parts: dict[int, list[NDArray[Any]]] = {number: [] for number in _NUMBERS}
        old: dict[int, int] = {}
        shape: list[int] | None = None
        position = begin
        while position < end:
            number, wire, first, after = self.one(position, end)
            if number in _NUMBERS:
                single, kind = _NUMBERS[number]
                width = np.dtype(kind).itemsize
                if wire == _BYTES and not (after - first) % width:
                    parts[number].append(self.numbers(first, (after - first) // width, kind))
                elif wire == single:
                    after = self.run(position, first, end, width, parts[number], kind)
                else:
                    raise self.broken(f"layer {short(layer)}: numbers of another kind than Caffe's", position)
            elif number == 7 and wire == _BYTES:
                shape = self.message(first, after, _SHAPE).get("dim", [])
            elif number in (1, 2, 3, 4) and wire == _VARINT:
                old[number] = _signed(self.varint(first, after)[0])
            position = after
        chosen = parts[8] or parts[5]
        values = chosen[0] if len(chosen) == 1 else np.concatenate([*chosen, np.zeros(0, np.float32)])
        if shape is None:
            shape = _without_leading([old.get(number, 0) for number in (1, 2, 3, 4)])
        if len(shape) > _MOST_SIDES or min(shape, default=1) < 0 or math.prod(shape) != len(values):
            raise self.broken(
                f"layer {short(layer)}: {len(values):,} numbers for a blob of the shape {short(tuple(shape))}", begin
            )
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(shape)

    def run(self, position: int, first: int, end: int, width: int, parts: list[NDArray[Any]], kind: str) -> int:
        """Numbers that are not packed: each has its own key. Returns the byte after the last of them.

        They are read many at once, as long as the keys are the same.
        """
        step = first - position + width
        if step != 1 + width:  # a key that is written longer than needed
            parts.append(self.numbers(first, 1, kind))
            return first + width
        key, many = self.bytes(position, position + 1)[0], _RUN
        while (count := min(many, (end - position) // step)) > 0:
            rows = self.numbers(position, count * step, "u1").reshape(count, step)
            same = rows[:, 0] == key
            good = count if same.all() else int(same.argmin())
            parts.append(rows[:good, 1:].copy().view(kind).reshape(-1))
            position += good * step
            if good < count:
                break
            many *= 2
        return position


def _signed(value: int) -> int:
    """A varint as the 64-bit number that it stands for."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _without_leading(shape: list[int]) -> list[int]:
    """An old shape always has four sides: a bias has (1, 1, 1, n), a matrix (1, 1, n, m)."""
    return shape[3:] if shape[:3] == [1, 1, 1] else shape[2:] if shape[:2] == [1, 1] else shape
