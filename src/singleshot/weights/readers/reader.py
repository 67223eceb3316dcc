"""The contract of readers of weights files.

A reader is a module with the names of `Reader`, and one line in `READERS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from singleshot.source import Source

START = 64
"""Bytes of the start of a file by which its kind is recognised."""


class Reader(Protocol):
    """One kind of file."""

    TITLE: str
    """The name of the kind in messages: "a safetensors file"."""

    def recognises(self, start: bytes) -> bool:
        """Whether a file that starts with these bytes, `START` at most, is of this kind. Any bytes may come."""

    def read(self, path: Path) -> Source:
        """The tensors of a file that is recognised, and the plain data beside them. It runs no code from the file.

        Raises:
            UserError: the file is damaged, or is of a kind that is not possible here. No other exception than this and
                `OSError` leaves a reader, whatever the bytes are; a small file never takes much memory or time.
        """
