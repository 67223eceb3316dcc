"""The formats of datasets: one file per format, and the table of them.

To add a format, write a module with a `FORMAT` (see `format.Format`) and add a line to `FORMATS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from singleshot.errors import UserError

if TYPE_CHECKING:
    from singleshot.data.formats.format import Format

# Strings, so that `--help` can name the formats without importing them. A folder that two formats recognise is refused.
FORMATS = {
    "voc": "singleshot.data.formats.voc",
    "coco": "singleshot.data.formats.coco",
}
"""The name of each format, as `--format` takes it, and the module that holds it."""


def load(name: str) -> Format[Any]:
    """The format of this name. Raises UserError if the table has none."""
    if name not in FORMATS:
        raise UserError(f"format {name!r} is unknown; choose one of: {', '.join(FORMATS)}.")
    found: Format[Any] = importlib.import_module(FORMATS[name]).FORMAT
    return found
