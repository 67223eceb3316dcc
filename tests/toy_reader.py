"""A toy reader: files of weights as text. One file, and one line in `READERS`."""

from __future__ import annotations

from pathlib import Path

import torch

from singleshot.errors import UserError
from singleshot.source import Source

TITLE = "a toy's weights file"


def recognises(start: bytes) -> bool:
    """They begin with a word of their own."""
    return start.startswith(b"TOY\n")


def read(path: Path) -> Source:
    """A line for each tensor: its name and its numbers."""
    tensors = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines()[1:], 2):
        try:
            name, *values = line.split()
            tensors[name] = torch.tensor([float(value) for value in values])
        except ValueError:
            raise UserError(f"{path}: line {number}: expected a name and numbers") from None
    return Source(tensors, {"lines": len(tensors)}, f"{path}: ")
