"""`singleshot data check`: check a dataset before training."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.cli.dataset import add_data, add_deep_range, add_reading, reading
from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser
from singleshot.errors import UserError

if TYPE_CHECKING:
    from singleshot.data.summary import Summary

EPILOG = """\
Errors (an image that cannot be read, broken XML or JSON, an inverted box, ...) stop training and give exit code 2.
With --skip-bad they are left out and the rest is used. Warnings (a box partly outside, a wrong size, ...) are repaired
in memory for training; the files are not changed. The table describes the usable images: their sizes, and for each
class the number of objects and their sizes (10% of the objects are smaller than the first figure, 10% are larger than
the last)."""


MOST = 10  # findings of each kind in the text; --json has all
SIZES = 3  # image sizes in the text, the most frequent ones


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("data check", "Checks a dataset and lists what is wrong with it.", EPILOG)
    parser.usage = "singleshot data check DATA [flags]"
    add_data(parser)
    parser.add_argument("--split", metavar="NAME", help="the split to check (default: all splits)")
    add_reading(parser)
    add_deep_range(parser)
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave errors out, as in training, and give exit code 0"
    )
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Check the splits. With errors the exit code is 2, after the whole report."""
    from singleshot.data.open import find_splits

    splits = [options.split] if options.split is not None else find_splits(options.data, format=options.format)
    reports = [_check(options, split, alone=len(splits) == 1) for split in splits]
    errors = sum(len(report["errors"]) for report, _ in reports)
    fault = None
    if errors and not options.skip_bad:
        fault = f"{options.data}: {errors} error{'s' * (errors != 1)}; correct them, or leave them out with --skip-bad"
    document = {"data": options.data, "splits": [report for report, _ in reports]}
    return Result(document, "\n\n".join(text for _, text in reports), fault)


def _check(options: Namespace, split: str, *, alone: bool) -> tuple[dict[str, Any], str]:
    """The findings of one split, as data and as text."""
    from singleshot.cli.progress import shown
    from singleshot.data.check import examine
    from singleshot.data.deep import DeepRange
    from singleshot.data.open import open_dataset
    from singleshot.data.summary import summarise

    try:
        dataset = open_dataset(options.data, split=split, need_truth=False, strict=False, **reading(options))
    except UserError as error:
        if alone:
            raise
        finding = {"kind": "split that cannot be read", "where": options.data, "message": str(error)}
        return {"title": split, "errors": [finding], "warnings": []}, f"{split}: {error}"
    with shown(dataset.split) as progress:
        usable, report = examine(dataset, deep_range=DeepRange.of(options.deep_range), progress=progress)
    known = {"split": dataset.split, "format": dataset.format, "class_names": dataset.class_names}
    summary = summarise(usable)
    text = report.text(MOST)
    if report.usable:
        text += f"\n{_summary_text(summary)}"
    return {**known, **report.to_json(), **summary.to_json()}, text


def _summary_text(summary: Summary) -> str:
    named = [f"{width} x {height} ({number})" for (width, height), number in summary.sizes[:SIZES]]
    others = f", and {len(summary.sizes) - SIZES} other sizes" if len(summary.sizes) > SIZES else ""
    rows = [
        (found.name, found.boxes, found.images, *map(_rounded, (found.small, found.median, found.large)))
        for found in summary.classes
    ]
    header = ("class", "objects", "images", "10%", "median", "90%")
    heading = f"  images: {', '.join(named)}{others}\n  size of the objects: square root of the area, in pixels\n"
    return heading + indent(table(rows, header=header), "  ")


def _rounded(side: float | None) -> int | None:
    return None if side is None else round(side)
