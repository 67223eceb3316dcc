"""Tables of text, for terminals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from singleshot.errors import shown

_WIDEST = 100  # characters of a cell; longer names are cut


def table(rows: Iterable[Iterable[Any]], *, header: Iterable[str]) -> str:
    """Columns of equal width, two spaces apart: text to the left, numbers to the right."""
    return aligned([[str(name) for name in header], *([cell(value) for value in row] for row in rows)])


def aligned(cells: list[list[str]], right: list[bool] | None = None) -> str:
    """Cells of text in columns, the header first; `right`: the columns that end in one line, by default the numbers."""
    if right is None:
        right = [all(is_number(row[c]) for row in cells[1:]) for c in range(len(cells[0]))]
    widths = [max(len(row[c]) for row in cells) for c in range(len(cells[0]))]
    lines = [
        "  ".join(text.rjust(w) if end else text.ljust(w) for text, w, end in zip(row, widths, right, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Any, form: str = "") -> str:
    """A value as text; `form`: how numbers are written, as Python's format specifications say (".1f")."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:{form or ','}}"
    return f"{value:{form or '.3f'}}" if isinstance(value, float) else shown(value, _WIDEST)


def is_number(text: str) -> bool:
    """Whether a cell counts as a number, which stands at the right: also the dash that says that there is none."""
    return text == "-" or text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()
