"""What the verbs `analyse ...` share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jsonargparse import Namespace

from singleshot.cli.output import Result, write
from singleshot.cli.parser import VerbParser, whole

if TYPE_CHECKING:
    from singleshot.data.dataset import Dataset
    from singleshot.detectors.detector import Detector

PREFERRED = ("val", "test")  # where no split is named, the first of these that the data has


class Analysis(Protocol):
    """What an analysis found."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""


def add_arguments(parser: VerbParser, *, model: bool = True, anchors: bool = True) -> None:
    """MODEL, DATA, and how they are read and run; `anchors`: where they are matched as in training."""
    parser.usage = f"{parser.prog} MODEL DATA [flags]"
    add = parser.add_argument
    if model:
        add("model", metavar="MODEL", help="a detector's file, such as RUN/best.safetensors")
    add("data", metavar="DATA", help="a Pascal VOC folder, a COCO folder or a COCO JSON file")
    add("--split", metavar="NAME", help="the split to analyse (default: val, else test, else the only one)")
    add("--format", choices=["voc", "coco"], help="needed where a folder holds both")
    add("--out", metavar="DIR", help="write the figure and the numbers into this folder")
    if anchors:
        add("--drop-difficult", action="store_true", help="match anchors without VOC's difficult objects")
    add("--batch-size", type=whole(1), default=8, metavar="N", help="images at a time (default: 8)")
    add("--device", metavar="cpu|cuda", help="where to compute (default: cuda where there is one)")
    add("--workers", type=whole(0), default=0, metavar="N", help="processes that read images (default: 0)")
    add("--builder", metavar="NAME", help="for a detector of your own: my_lab.models:my_detector")


def opened(options: Namespace) -> tuple[Detector, Dataset, dict[str, Any]]:
    """The detector, the data, and the keywords of the analysis; first whether `--out` can be written."""
    from singleshot.cli.model import load_model
    from singleshot.data.open import open_dataset
    from singleshot.evaluation.detections import writable

    if options.out is not None:
        writable(options.out)
    detector = load_model(options.model, builder=options.builder, device=options.device)
    dataset = open_dataset(
        options.data,
        split=options.split,
        format=options.format,
        prefer=PREFERRED,
        class_names=detector.class_names,
    )
    print(f"{dataset.root}: {len(dataset)} images of split {dataset.split!r} ({dataset.format})", file=sys.stderr)
    names = ("batch_size", "workers", "drop_difficult")
    return detector, dataset, {name: options[name] for name in names if name in options}


def reported(found: Analysis, text: str, options: Namespace, name: str) -> Result:
    """The result; with `--out` also its figure NAME.png and its numbers NAME.json, as `--json` prints them."""
    result = Result(found.to_json(), text)
    if options.out is None:
        return result
    from singleshot.analysis import plots
    from singleshot.files import write_atomically

    draw: dict[str, Callable[[Any, Path], Path]]
    draw = {
        "errors": plots.plot_errors,
        "iou": plots.plot_iou,
        "loss": plots.plot_losses,
        "run": plots.plot_runs,
    }
    out = Path(options.out)
    draw[name](found, out / f"{name}.png")
    write_atomically(out / f"{name}.json", f"{write(result, as_json=True)}\n".encode())
    return Result(result.document, f"{text}\n\n{name}.png and {name}.json are in {out}")
