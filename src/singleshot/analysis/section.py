"""What an analysis says to people, as data: `render` makes text, a page or pictures of it."""

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
    form: str = ""  # of numbers, as Python's format specifications (".1f"); else 3 digits, whole numbers with commas
    align: Literal["left", "right"] | None = None  # None: numbers to the right, text to the left
    group: str = ""  # a line stands before it; on a page also this title, above it and those that follow


@dataclass(frozen=True)
class Table:
    """Rows of plain values. None and NaN are written as a dash."""

    columns: Sequence[Column | str]  # a string is a column with nothing but a title
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
        """Which columns stand at the right."""
        cells = self.cells()
        return [
            all(is_number(row[c]) for row in cells) if head.align is None else head.align == "right"
            for c, head in enumerate(self.heads)
        ]


@dataclass(frozen=True)
class Image:
    """A picture that is there already, such as a contact sheet of detections."""

    source: Path | bytes  # a PNG or JPEG file, or what stands in one
    alt: str  # what it shows, for those who do not see it
    caption: str = ""
    name: str = ""  # in file names, as `Figure.name`

    def read(self) -> tuple[bytes, str]:
        """The content of the file, and "png" or "jpeg".

        Raises:
            UserError: it is neither.
        """
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        for start, kind in _KINDS.items():
            if content.startswith(start):
                return content, kind
        where = "an image of a section" if isinstance(self.source, bytes) else self.source
        raise UserError(f"{where}: a page shows PNG and JPEG files, and this is neither; convert it first")


Block = str | Table | Figure | Image
"""A paragraph, or one of the others."""


@dataclass(frozen=True)
class Section:
    """A part of a report. All text is plain text: the renderer escapes what needs it."""

    title: str
    lead: str  # the first paragraph: what was measured, and the figure that counts most
    blocks: tuple[Block, ...] = ()  # in the order in which they are read
    next_step: str = ""  # what to do now, in a sentence

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
