"""`singleshot analyse errors`: what keeps AP down, by kind of error, class and size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from singleshot.cli.analyse import PREFERRED, add_arguments, opened, reported
from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser, fraction
from singleshot.errors import UserError

if TYPE_CHECKING:
    from singleshot.analysis.errors import ErrorAnalysis, Tally
    from singleshot.data.dataset import Dataset
    from singleshot.evaluation.detections import ImageDetections

EPILOG = """\
Kinds of error as TIDE has them: missed objects; detections that are misplaced (the right class, an IoU of 0.1 to 0.5),
confused (on an object of another class), both, duplicates, or on the background. Detections from files need no model
and no images: singleshot analyse errors --detections FILE_OR_DIR DATA
--out writes errors.png and errors.json."""
_CONFUSIONS = 5  # that are printed


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb. With `--detections` there is no MODEL, and `model` is None."""
    parser = VerbParser("analyse errors", "Sorts what is wrong: by kind of error, class and size.", EPILOG)
    from_files = any(word.partition("=")[0] == "--detections" for word in words)
    add_arguments(parser, model=not from_files, anchors=False)
    parser.usage = f"{parser.prog} MODEL DATA [flags]\n       {parser.prog} --detections FILE_OR_DIR DATA [flags]"
    parser.add_argument("--detections", metavar="FILE_OR_DIR", help="sort what stands in files, without a model")
    parser.add_argument(
        "--min-score", type=fraction, metavar="S", help="tally detections from this score on (default: best F1)"
    )
    options = parser.parse(words)
    if from_files:
        options["model"] = None
        if options.builder:
            raise UserError("--builder belongs to a model, and --detections sorts what stands in files: leave one out")
    return options


def run(options: Namespace) -> Result:
    """Sort, draw and list."""
    from singleshot.analysis.errors import error_analysis

    dataset, detections = _found(options)
    found = error_analysis(dataset, detections, min_score=options.min_score)
    text = _text(found)
    return reported(found, text, options, "errors")


def _found(options: Namespace) -> tuple[Dataset, Sequence[ImageDetections]]:
    if options.model is None:
        from singleshot.data.open import open_dataset
        from singleshot.evaluation.detections import read_detections

        dataset = open_dataset(options.data, split=options.split, format=options.format, prefer=PREFERRED)
        return dataset, read_detections(options.detections, dataset)
    from singleshot.cli.progress import shown
    from singleshot.evaluation.detect_dataset import detect_dataset

    detector, dataset, sizes = opened(options)
    with shown("images") as progress:
        return dataset, detect_dataset(detector, dataset, **sizes, progress=progress)


def _text(found: ErrorAnalysis) -> str:
    gains = [[kind, f"{100 * gain:.1f}"] for kind, gain in sorted(found.gains.items(), key=lambda one: -one[1])]
    parts = [
        f"AP50 {100 * found.AP50:.1f} ({found.images} images, {found.total.objects:,} objects). "
        "With one kind of error mended it would be higher by",
        table(gains, header=["errors", "points"]),
        f"At scores from {found.min_score:.3f} on: precision {found.precision:.3f}, recall {found.recall:.3f}",
        _tallies("class", [*found.classes, found.total]),
        _tallies("size", found.sizes),
    ]
    if found.confusions:
        most = (f"{a} for {b} ({count})" for a, b, count in found.confusions[:_CONFUSIONS])
        parts.append(f"Most often taken: {', '.join(most)}")
    return "\n\n".join(parts)


def _tallies(title: str, tallies: Sequence[Tally]) -> str:
    rows = [
        [one.name, one.objects, one.found, one.confused, one.misplaced, one.missed, "|", *one.detections.values()]
        for one in tallies
    ]
    kinds = tallies[0].detections
    return table(rows, header=[title, "objects", "found", "confused", "misplaced", "missed", "|", *kinds])
