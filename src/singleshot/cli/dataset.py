"""DATA and `--format`: the arguments for a dataset, the same in every verb."""

from __future__ import annotations

from singleshot.cli.parser import VerbParser
from singleshot.data.formats import FORMATS


def add_data(parser: VerbParser, *, optional: bool = False) -> None:
    """Add DATA, the path of a dataset."""
    formats = f"a folder, or a file, in one of the formats {', '.join(FORMATS)} (see `singleshot data formats`)"
    if optional:
        parser.add_argument("data", metavar="DATA", nargs="?", help=formats)
    else:
        parser.add_argument("data", metavar="DATA", help=formats)


def add_format(parser: VerbParser) -> None:
    """Add `--format`; its values are the names in the table of formats."""
    parser.add_argument("--format", choices=list(FORMATS), help="the format to read, if a folder holds several")
