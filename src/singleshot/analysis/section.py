"""The result of an analysis for a reader, as data: `render` turns it into text, a page or pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from singleshot.analysis.figure import Figure
from singleshot.errors import UserError
from singleshot.text_table import cell, is_number

Cell = str | int | float | bool | None
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}  # the first bytes of the files that are shown


@dataclass(frozen=True)
class Column:
    """How one column of a table is written."""

    title: str
    form: str = ""  # a Python format specification (".1f"); "": 3 digits, and whole numbers with commas
    align: Literal["left", "right"] | None = None  # None: numbers to the right, text to the left
    group: str = ""  # starts a group of columns: a line before it, and on a page this title above the group


@dataclass(frozen=True)
class Table:
    """Rows of plain values. None and NaN are written as a dash."""

    columns: Sequence[Column | str]  # a string is a column that has only a title
    rows: Sequence[Sequence[Cell]]
    title: str = ""  # a phrase or a sentence above the table
    total: bool = False  # the last row sums up the others

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.columns)} columns: {row}")

    @property
    def heads(self) -> tuple[Column, ...]:
        """The columns, all of them as `Column`."""
        return tuple(Column(one) if isinstance(one, str) else one for one in self.columns)

    def cells(self) -> list[list[str]]:
        """The rows as text, without the header."""
        return [[cell(value, head.form) for value, head in zip(row, self.heads, strict=True)] for row in self.rows]

    def right(self) -> list[bool]:
        """Which columns are aligned to the right."""
        cells = self.cells()
        return [
            all(is_number(row[c]) for row in cells) if head.align is None else head.align == "right"
            for c, head in enumerate(self.heads)
        ]


@dataclass(frozen=True)
class Image:
    """A finished picture, such as a contact sheet of detections."""

    source: Path | bytes  # a PNG or JPEG file, or the content of one
    alt: str  # what it shows, for readers who cannot see it
    caption: str = ""
    name: str = ""  # in file names, as `Figure.name`

    def read(self) -> tuple[bytes, str]:
        """The content of the file, and "png" or "jpeg".

        Raises:
            UserError: it is neither PNG nor JPEG.
        """
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        for start, kind in _KINDS.items():
            if content.startswith(start):
                return content, kind
        where = "an image of a section" if isinstance(self.source, bytes) else self.source
        raise UserError(f"{where}: this is not a PNG or JPEG file, and a page shows only these; convert it first")


Block = str | Table | Figure | Image
"""A paragraph, a table, a figure or an image."""


@dataclass(frozen=True)
class Section:
    """A part of a report. All text is plain text: the renderer escapes what needs escaping."""

    title: str
    lead: str  # the first paragraph: what was measured, and the most important number
    blocks: tuple[Block, ...] = ()  # in reading order
    next_step: str = ""  # what to do next, in one sentence

    def __post_init__(self) -> None:
        names = [one.name for one in self.blocks if isinstance(one, Figure | Image)]
        if len(set(names)) < len(names):
            raise ValueError(f"two pictures of the section {self.title!r} have the same name: {names}")

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables, in their order."""
        return tuple(one for one in self.blocks if isinstance(one, Table))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures, in their order."""
        return tuple(one for one in self.blocks if isinstance(one, Figure))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, in their order."""
        return tuple(one for one in self.blocks if isinstance(one, Image))
