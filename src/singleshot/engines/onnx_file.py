"""The metadata of an ONNX file, read without loading its graph and without any package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_METADATA = 14  # the field of ModelProto; each entry has a key (1) and a value (2)
_LONGEST = 64 * 2**20  # bytes of an entry: class names of 100,000 classes are far below
_BYTES = 2  # a wire type of protobuf: a length and as many bytes
_FIXED = {1: 8, 5: 4}  # wire types of numbers with a fixed size


def metadata(path: Path) -> dict[str, str]:
    """The key-value pairs of an ONNX file.

    Only the lengths of its parts are followed, so a file that is cut, or that is none, is found before a graph is
    loaded.

    Raises:
        ValueError: it is not an ONNX file, or it ends too early. The message says which.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError("the file is empty")
        while file.tell() < size:
            field, length = _head(file, size)
            if field == _METADATA and length is not None:
                if length > _LONGEST:
                    raise ValueError("its metadata is too long")
                key, value = _pair(file.read(length))
                found[key] = value
            elif length is not None:
                file.seek(length, os.SEEK_CUR)
    return found


def _head(file: BinaryIO, size: int) -> tuple[int, int | None]:
    """The number of a field, and how many bytes it has; None where it has been read."""
    tag = _number(file)
    field, kind = tag >> 3, tag & 7
    if not field or field > 100 or kind not in (0, _BYTES, *_FIXED):  # ModelProto has about 25 fields
        raise ValueError("it is not an ONNX file")
    if kind == 0:
        _number(file)
        return field, None
    length = _number(file) if kind == _BYTES else _FIXED[kind]
    if length > size - file.tell():
        raise ValueError("it is not a whole ONNX file: it was cut, or is none")
    return field, length


def _number(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is not a whole ONNX file: it was cut, or is none")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is not an ONNX file")


def _pair(entry: bytes) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    place = 0
    while place < len(entry):
        tag, place = entry[place], place + 1
        length = shift = 0
        while True:
            if place >= len(entry) or shift > 63:
                raise ValueError("its metadata is broken")
            byte, place = entry[place], place + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if tag & 7 != _BYTES or place + length > len(entry):
            raise ValueError("its metadata is broken")
        if tag >> 3 in texts:
            texts[tag >> 3] = entry[place : place + length].decode("utf-8", "replace")
        place += length
    return texts[1], texts[2]
