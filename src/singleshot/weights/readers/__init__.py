"""Reads files of weights of any program: one file per kind, recognised by their first bytes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from singleshot.backbones.pretrained import read_tensors
from singleshot.errors import UserError
from singleshot.paths import to_path
from singleshot.source import Source
from singleshot.weights.readers.reader import START, Reader

READERS = {
    "safetensors": "singleshot.weights.readers.safetensors",
    "caffemodel": "singleshot.weights.readers.caffemodel",
}
"""The name of each kind of file, and the module of its reader."""


def find_reader(name: str) -> Reader:
    """The reader of a kind of file in `READERS`."""
    return cast(Reader, importlib.import_module(READERS[name]))


def read(path: str | Path) -> Source:
    """What a file of weights holds: of a kind in `READERS`, or of PyTorch, read by its restricted reader.

    Raises:
        UserError: the file is missing, damaged, or of no known kind.
    """
    path = to_path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a weights file")
    try:
        with path.open("rb") as file:
            start = file.read(START)
        for name in READERS:
            if (reader := find_reader(name)).recognises(start):
                return reader.read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    return Source(read_tensors(path), where=f"{path}: ")
