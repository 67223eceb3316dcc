"""`singleshot evaluate`: COCO and VOC metrics of a model, or of detections in files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jsonargparse import Namespace

from singleshot.cli.dataset import add_data, add_reading, reading, say_elsewhere
from singleshot.cli.elsewhere import EVALUATE
from singleshot.cli.engine import add_engine, chosen
from singleshot.cli.multiscale import HELP as TTA
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, whole
from singleshot.cli.sweep import postprocesses, sweep_of
from singleshot.devices import METAVAR
from singleshot.errors import UserError
from singleshot.ranges import MOST_IMAGES, MOST_WORKERS
from singleshot.terminal import say

EPILOG = """\
Prints the 12 COCO numbers and the VOC07 (11 points) and VOC10+ (area) mAP, also per class.
Detections from files (a COCO results JSON, or a folder of VOC comp4_det_test_CLASS.txt files) need no model and no
images: singleshot evaluate --detections FILE_OR_DIR DATA
--sweep runs the network once and repeats the post-processing for several values of one number: iou_alpha (for a model
with an IoU head; "product" is the plain product p * IoU), centreness_alpha (the same for that output), threshold, nms,
soft_nms, vote, candidates, candidates_of_image or detections.
--tta is multi-scale testing, as in the "+" rows of the RefineDet paper: refinedet320_voc, refinedet512_voc,
refinedet320_coco, refinedet512_coco, or a YAML file (docs/multi_scale.md)."""

# If no split is named: the first of these that the data has, or the only one.
PREFERRED = ("val", "test")


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb. With `--detections` there is no MODEL, so `model` is None."""
    parser = VerbParser("evaluate", "Measures a detector on data with known boxes.", EPILOG, elsewhere=EVALUATE)
    parser.usage = (
        "singleshot evaluate MODEL DATA [flags]\n       singleshot evaluate --detections FILE_OR_DIR DATA [flags]"
    )
    from_files = any(word.partition("=")[0] == "--detections" for word in words)
    if not from_files:
        parser.add_argument("model", metavar="MODEL", help="a detector's file, such as RUN/best.safetensors")
    add_data(parser)
    add = parser.add_argument
    add("--split", metavar="NAME", help="the split to measure on (default: val, else test, else the only one)")
    add_reading(parser)
    add("--detections", metavar="FILE_OR_DIR", help="measure detections from files, without a model")
    add("--save-detections", metavar="DIR", help="write the detections as VOC and COCO files, for their servers")
    add("--overwrite", action="store_true", help="replace files of --save-detections that exist already")
    add(
        "--sweep",
        metavar="NAME=VALUES",
        help="AP for several values of one number, in one pass: iou_alpha=product,1,0.9,...,0 or nms=0.4,0.5,0.6",
    )
    add("--tta", metavar="NAME|FILE", help=TTA)
    add("--batch-size", type=whole(1, MOST_IMAGES), default=8, metavar="N", help="images at a time (default: 8)")
    add("--device", metavar=METAVAR, help="where to compute (default: cuda if there is one)")
    add("--workers", type=whole(0, MOST_WORKERS), default=0, metavar="N", help="threads that read ahead (default: 0)")
    add_engine(add, exact=True)
    add("--builder", metavar="NAME", help="builder of your own detector: my_lab.models:my_detector")
    options = parser.parse(words)
    if from_files:
        options["model"] = None
        if options.builder:
            raise UserError("--builder is for a model, but --detections measures without one: leave one of them out")
        if options.sweep is not None:
            raise UserError(
                "--sweep repeats a model's post-processing, but --detections measures without a model: "
                "leave one of them out"
            )
        if options.tta is not None:
            raise UserError(
                "--tta shows images to a model, but --detections measures without one: leave one of them out"
            )
    if options.tta is not None and options.sweep is not None:
        raise UserError("--sweep repeats the post-processing of one pass, but --tta makes many: leave one of them out")
    if options.sweep is not None:
        options["sweep"] = sweep_of(options.sweep)
    if options.sweep is not None and options.save_detections is not None:
        raise UserError(
            "--save-detections writes one set of detections, but --sweep makes several: leave one of them out"
        )
    return options


def run(options: Namespace) -> Result:
    """Measure."""
    from singleshot.data.limits import detector_note
    from singleshot.data.open import open_dataset
    from singleshot.evaluation.detections import read_detections, save_detections, saved_names, writable
    from singleshot.evaluation.metrics import evaluate

    asked: dict[str, Any] = {"split": options.split, "prefer": PREFERRED, **reading(options)}
    if options.model is None:
        dataset = open_dataset(options.data, **asked)
        _announce(dataset)
        detections = read_detections(options.detections, dataset)
    else:
        from singleshot.cli import progress
        from singleshot.cli.model import load_model
        from singleshot.cli.multiscale import multi_scale, shown, views_of
        from singleshot.evaluation.detect_dataset import detect_dataset, sweep

        views = None if options.tta is None else views_of(options.tta)
        wanted = None if options.sweep is None else "--sweep"
        how = {"builder": options.builder, "device": options.device, **chosen(options)}
        detector = load_model(options.model, wanted=wanted, exact=True, **how)
        dataset = open_dataset(options.data, class_names=detector.class_names, **asked)
        _announce(dataset)
        sizes = {"batch_size": options.batch_size, "workers": options.workers}
        if options.sweep is not None:
            choices = postprocesses(options.sweep, detector, options.model)
            with progress.shown("images") as bar:
                found = sweep(detector, dataset, options.sweep.name, choices, **sizes, progress=bar)
            _say_notes(found.metrics[0].notes)
            return Result(found.to_json(), found.table())
        if options.save_detections is not None:
            writable(options.save_detections, saved_names(dataset), overwrite=options.overwrite)
        many = None if views is None else multi_scale(detector, views)
        kept = (detector.spec.postprocess or {}).get("detections")
        if many is None and kept is not None and (note := detector_note(dataset, kept)):
            _say_notes([note])
        with shown(many) as bar:
            detections = detect_dataset(many or detector, dataset, **sizes, progress=bar)
    if options.save_detections is not None:
        save_detections(options.save_detections, dataset, detections, overwrite=options.overwrite)
        say(f"the detections are in {options.save_detections}")
    metrics = evaluate(dataset, detections)
    _say_notes(metrics.notes)
    return Result(metrics.to_json(), metrics.table())


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def _announce(dataset: Any) -> None:
    say(f"{dataset.root}: {len(dataset)} images of split {dataset.split!r} ({dataset.format})")
    say_elsewhere(dataset)
