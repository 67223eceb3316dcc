"""Reads safetensors files. Their metadata is text by name, and becomes the notes."""

from __future__ import annotations

from pathlib import Path

from singleshot.source import Source
from singleshot.tensor_files import unpacked

TITLE = "a safetensors file"


def recognises(start: bytes) -> bool:
    """Eight bytes of length, then a JSON object."""
    return start[8:9] == b"{"


def read(path: Path) -> Source:
    """The tensors and the metadata."""
    tensors, text = unpacked(path.read_bytes(), f"{path}: ")
    return Source(tensors, text, f"{path}: ")
