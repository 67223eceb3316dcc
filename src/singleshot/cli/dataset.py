"""DATA and `--format`: how every verb takes a dataset."""

from __future__ import annotations

from singleshot.cli.parser import VerbParser
from singleshot.data.formats import FORMATS


def add_data(parser: VerbParser, *, optional: bool = False) -> None:
    """The path of a dataset."""
    formats = f"a folder, or a file, in one of the formats {', '.join(FORMATS)} (see `singleshot data formats`)"
    if optional:
        parser.add_argument("data", metavar="DATA", nargs="?", help=formats)
    else:
        parser.add_argument("data", metavar="DATA", help=formats)


def add_format(parser: VerbParser) -> None:
    """Which of the formats it has; the names are those of the table."""
    parser.add_argument("--format", choices=list(FORMATS), help="needed where a folder holds several formats")
