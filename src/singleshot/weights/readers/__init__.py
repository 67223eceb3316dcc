"""Reads files of weights of any program: one file per kind, recognised by their first bytes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from singleshot.errors import UserError
from singleshot.files import not_a_file
from singleshot.paths import to_path
from singleshot.source import Source
from singleshot.weights.readers.reader import START, Reader

READERS = {
    "safetensors": "singleshot.weights.readers.safetensors",
    "tflite": "singleshot.weights.readers.tflite",
    "caffemodel": "singleshot.weights.readers.caffemodel",
    "pytorch": "singleshot.torch_files",
}
"""The name of each kind of file, and the module of its reader."""


def find_reader(name: str) -> Reader:
    """The reader of a kind of file in `READERS`."""
    return cast(Reader, importlib.import_module(READERS[name]))


def read(path: str | Path) -> Source:
    """What a file of weights holds, of a kind in `READERS`.

    Raises:
        UserError: the file is missing, damaged, or of no known kind.
    """
    path = to_path(path)
    try:
        if (kind := not_a_file(path)) is not None:
            raise UserError(f"{path}: is {kind}; give a weights file")
        with path.open("rb") as file:
            start = file.read(START)
        readers = [find_reader(name) for name in READERS]
        for reader in readers:
            if reader.recognises(start):
                return reader.read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a weights file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    raise UserError(f"{path}: not a weights file; expected {', '.join(reader.TITLE for reader in readers)}")
