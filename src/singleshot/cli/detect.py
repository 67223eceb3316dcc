"""`singleshot detect`: find objects in pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from singleshot.cli.elsewhere import DETECT
from singleshot.cli.engine import add_engine, chosen
from singleshot.cli.multiscale import HELP as TTA
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, fraction, whole
from singleshot.devices import METAVAR
from singleshot.errors import UserError, shown
from singleshot.inference.options import LEAST, MOST, Options

if TYPE_CHECKING:
    from singleshot.prediction import Prediction

EPILOG = """\
SOURCE is an image file, a folder (with all subfolders) or a quoted glob such as 'photos/**/*.jpg'. With --out, pictures
with boxes, names and scores are written to that folder, and the detections as a COCO results file.
With --jsonl, each image gives one line as soon as it is ready, in the form of --json; Ctrl-C leaves whole lines."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("detect", "Finds objects in pictures.", EPILOG, elsewhere=DETECT)
    parser.usage = "singleshot detect MODEL SOURCE... [flags]"
    parser.add_argument("model", metavar="MODEL", help="a detector's file, such as RUN/best.safetensors")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="image files, folders, globs")
    add = parser.add_argument
    add("--out", metavar="DIR", help="write the drawn pictures and detections.json to this folder")
    add("--overwrite", action="store_true", help="replace what an earlier run has written to --out")
    add(
        "--threshold",
        type=fraction,
        default=Options.threshold,
        metavar="T",
        help=f"leave out detections with a lower score (default: {Options.threshold})",
    )
    add("--classes", nargs="+", metavar="NAME", help="only these classes")
    add(
        "--top-k",
        type=whole(LEAST["top_k"], MOST["top_k"]),
        metavar="N",
        help="keep at most the N best detections of each image",
    )
    add("--tta", metavar="NAME|FILE", help=TTA)
    for name, what in (("batch_size", "images at a time"), ("workers", "threads that read ahead")):
        default = getattr(Options, name)
        flag, least = f"--{name.replace('_', '-')}", whole(LEAST[name], MOST[name])
        add(flag, type=least, default=default, metavar="N", help=f"{what} (default: {default})")
    add("--jsonl", metavar="FILE", help="write one line of JSON for each image as soon as it is ready; - is stdout")
    add("--skip-bad", action="store_true", help="skip images that cannot be read, instead of stopping")
    add("--device", metavar=METAVAR, help="where to compute (default: cuda if available)")
    add_engine(add)
    add("--builder", metavar="NAME", help="for a detector of your own: my_lab.models:my_detector")
    found = parser.parse(words)
    if found.jsonl == "-" and found.json:
        raise UserError("--jsonl - and --json both write to stdout: leave one of them out, or name a file for --jsonl")
    return found


def run(options: Namespace) -> Result:
    """Detect objects, draw the pictures and list the detections."""
    from singleshot.cli import multiscale
    from singleshot.cli.model import load_model
    from singleshot.inference.lines import writer
    from singleshot.inference.predictor import iterate
    from singleshot.inference.results import to_json

    views = None if options.tta is None else multiscale.views_of(options.tta)
    how = {"builder": options.builder, "device": options.device, **chosen(options)}
    detector = load_model(options.model, **how)
    many = None if views is None else multiscale.multi_scale(detector, views)
    with multiscale.shown(many) as bar, writer(options.jsonl, overwrite=options.overwrite) as write:
        predictions = iterate(
            many or detector,
            options.sources,
            out=options.out,
            overwrite=options.overwrite,
            options=Options(**{field.name: options[field.name] for field in fields(Options)}),
            progress=bar,
        )
        if write is not None:
            count = 0
            for prediction in predictions:
                write(prediction)
                count += 1
            where = "" if options.jsonl == "-" else f"{count} images: the lines are in {shown(options.jsonl)}"
            return Result({"images": count, "lines": options.jsonl}, where, silent=options.jsonl == "-")
        found = list(predictions)
    lines = [_line(prediction) for prediction in found]
    if options.out is not None:
        lines.append(f"the pictures and detections.json are in {shown(options.out)}")
    return Result(to_json(found), "\n".join(lines))


def _line(prediction: Prediction) -> str:
    counts = Counter(prediction.names)
    found = ", ".join(f"{count} {shown(name)}" for name, count in counts.items())
    return f"{shown(prediction.path)}: {found or 'nothing'}"
