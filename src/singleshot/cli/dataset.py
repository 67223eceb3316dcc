"""DATA, `--format` and `--allow-outside`: the arguments for a dataset, the same in every verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.cli.parser import VerbParser
from singleshot.data.formats import FORMATS
from singleshot.terminal import say

if TYPE_CHECKING:
    from singleshot.data.dataset import Dataset


def add_data(parser: VerbParser, *, optional: bool = False) -> None:
    """Add DATA, the path of a dataset."""
    formats = f"a folder, or a file, in one of the formats {', '.join(FORMATS)} (see `singleshot data formats`)"
    if optional:
        parser.add_argument("data", metavar="DATA", nargs="?", help=formats)
    else:
        parser.add_argument("data", metavar="DATA", help=formats)


def add_deep_range(parser: VerbParser) -> None:
    """Add `--deep-range`, for the verbs that look at the images of a dataset without a recipe."""
    parser.add_argument(
        "--deep-range",
        nargs=2,
        type=float,
        metavar=("BLACK", "WHITE"),
        help="the values of grey images of more than 8 bits that are black and white, such as 0 4095 "
        "(default: 0 and the largest of their type; in a recipe: data.deep_range)",
    )


def add_reading(parser: VerbParser) -> None:
    """Add `--format`, whose values are the names in the table of formats, and `--allow-outside`."""
    parser.add_argument("--format", choices=list(FORMATS), help="the format to read, if a folder holds several")
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="read images that the annotations name outside of DATA too; give it only if you trust them",
    )


def reading(options: Namespace) -> dict[str, Any]:
    """The arguments of `open_dataset` that `add_reading` added."""
    return {"format": options.format, "allow_outside": options.allow_outside}


def say_elsewhere(dataset: Dataset) -> None:
    """Say which image is used for a name that leads elsewhere, for verbs that do not check the data."""
    if (note := dataset.elsewhere()) is not None:
        say(f"note: {note}")
