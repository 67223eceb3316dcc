"""`singleshot analyse NAME`, for every analysis of the table `singleshot.analysis.ANALYSES`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.analysis import Analysis, Findings, find_analysis
from singleshot.cli.dataset import add_data, add_reading, reading, say_elsewhere
from singleshot.cli.elsewhere import MEASURE
from singleshot.cli.output import Result, write
from singleshot.cli.parser import VerbParser, whole
from singleshot.devices import METAVAR
from singleshot.errors import UserError
from singleshot.paths import to_path
from singleshot.ranges import MOST_IMAGES, MOST_WORKERS
from singleshot.terminal import say

if TYPE_CHECKING:
    from singleshot.data.dataset import Dataset

PREFERRED = ("val", "test")  # if no split is named, the first of these that the data has
_PAGES = (".html", ".htm")
_PICTURES = (".png", ".jpg")


class AnalyseVerb:
    """The verb of one analysis: `parse` and `run`, as in the modules of the other verbs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.analysis: Analysis = find_analysis(name)

    def parse(self, words: Sequence[str]) -> Namespace:
        """The options. With `--detections` there is no MODEL, so `model` is None."""
        takes = self.analysis.takes
        from_files = takes == "detections" and any(word.partition("=")[0] == "--detections" for word in words)
        parser = VerbParser(f"analyse {self.name}", self.analysis.description, self._epilog(), elsewhere=MEASURE)
        parser.usage = f"{parser.prog} MODEL DATA [flags]"
        if takes == "runs":
            parser.usage = f"{parser.prog} RUN [RUN ...] [flags]"
            parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
            _add_outputs(parser)
        else:
            _add_data(parser, model=not from_files)
            _add_outputs(parser)
            _add_pass(parser, anchors=takes == "detector")
        if takes == "detections":
            parser.usage += f"\n       {parser.prog} --detections FILE_OR_DIR DATA [flags]"
            parser.add_argument(
                "--detections", metavar="FILE_OR_DIR", help="analyse detections from files, without a model"
            )
        for flag in self.analysis.flags:
            flag.add_to(parser)
        options = parser.parse(words)
        if from_files:
            options["model"] = None
            if options.builder:
                raise UserError("--builder is for a model, but --detections needs no model: leave one of them out")
        return options

    def run(self, options: Namespace) -> Result:
        """Measure, and write the result."""
        _ask_where(options, self.name)
        own = {flag.keyword: options[flag.keyword] for flag in self.analysis.flags}
        if self.analysis.takes == "runs":
            found, about = self.analysis.measure(options.runs, **own), ", ".join(options.runs)
        else:
            found, about = self._on_data(options, own)
        return self._told(found, options, about)

    def _epilog(self) -> str:
        files = [] if self.analysis.takes != "detections" else [
            "Detections from files need no model and no images:\n"
            f"singleshot analyse {self.name} --detections FILE_OR_DIR DATA"
        ]  # fmt: skip
        return "\n".join(
            [
                self.analysis.notes,
                *files,
                f"--out writes {self.name}.png and {self.name}.json; --html writes a page with the tables and figures.",
            ]
        )

    def _on_data(self, options: Namespace, own: dict[str, Any]) -> tuple[Findings, str]:
        """The result of the analysis, and a text that says what was analysed."""
        from singleshot.cli.progress import shown

        if options.model is None:
            from singleshot.evaluation.detections import read_detections

            dataset = _open(options)
            found = self.analysis.measure(dataset, read_detections(options.detections, dataset), **own)
            return found, _about(options.detections, dataset)
        from singleshot.cli.model import load_model

        wanted = f"analyse {self.name}" if self.analysis.takes == "detector" else None
        detector = load_model(options.model, builder=options.builder, device=options.device, wanted=wanted, exact=True)
        dataset = _open(options, class_names=detector.class_names)
        sizes = {"batch_size": options.batch_size, "workers": options.workers}
        with shown("images") as progress:
            if self.analysis.takes == "detector":
                sizes["drop_difficult"] = options.drop_difficult
                found = self.analysis.measure(detector, dataset, **sizes, progress=progress, **own)
            else:
                from singleshot.evaluation.detect_dataset import detect_dataset

                detections = detect_dataset(detector, dataset, **sizes, progress=progress)
                found = self.analysis.measure(dataset, detections, **own)
        return found, _about(options.model, dataset)

    def _told(self, found: Findings, options: Namespace, about: str) -> Result:
        """The result. `--out` writes its figures and its numbers (as `--json` prints them), `--html` writes a page."""
        from singleshot.analysis.render.text import to_text
        from singleshot.files import write_atomically

        section = found.section()
        text = to_text(section)
        result = Result(found.to_json(), text)
        if options.out is not None:
            from singleshot.analysis.render.pictures import write_pictures

            out = to_path(options.out)
            names = [path.name for path in write_pictures(section, out, self.name)]
            _remember(out, self.name, names)
            names.append(f"{self.name}.json")
            write_atomically(out / names[-1], f"{write(result, as_json=True)}\n".encode(errors="backslashreplace"))
            *others, last = names
            told = f"{', '.join(others)} and {last} are" if others else f"{last} is"
            text = f"{text}\n\n{told} in {out}"
        if options.html is not None:
            from singleshot.analysis.render.html import to_html

            write_atomically(Path(options.html), to_html([section], about=about).encode(errors="backslashreplace"))
            text = f"{text}\n\nThe page is {options.html}"
        return Result(result.document, text)


def _remember(out: Path, name: str, written: Sequence[str]) -> None:
    """Remove pictures of an earlier run, which are wrong beside the new numbers, and list those of this one.

    There is a list only if there is more than NAME.png, which each run replaces.
    """
    from singleshot.files import write_atomically

    for one in _earlier(out, name) - set(written):
        (out / one).unlink(missing_ok=True)
    file, more = out / _list_name(name), [one for one in written if one.startswith(f"{name}_")]
    if more:
        write_atomically(file, f"{json.dumps(more)}\n".encode())
    elif file.is_file():
        file.unlink()


def _list_name(name: str) -> str:
    """The file that lists the pictures of an analysis: what `--overwrite` may remove."""
    return f".{name}"


def _earlier(out: Path, name: str) -> set[str]:
    """The pictures that an earlier run listed. What is not a picture of this analysis in the folder is none of ours."""
    try:
        listed = json.loads((out / _list_name(name)).read_bytes()) if (out / _list_name(name)).is_file() else []
    except (OSError, ValueError, RecursionError):
        return set()
    return {
        one
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, str) and one.startswith(f"{name}_") and one.endswith(_PICTURES) and one.isprintable()
        if not set(one) & set("/\\:")
    }


def _add_data(parser: VerbParser, *, model: bool) -> None:
    add = parser.add_argument
    if model:
        add("model", metavar="MODEL", help="a detector's file, such as RUN/best.safetensors")
    add_data(parser)
    add("--split", metavar="NAME", help="the split to analyse (default: val, else test, else the only one)")
    add_reading(parser)


def _add_outputs(parser: VerbParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="write the figures and the numbers into this folder")
    parser.add_argument("--html", metavar="FILE", help="write tables and figures as one page, such as DIR/page.html")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run has written to --out and --html"
    )


def _add_pass(parser: VerbParser, *, anchors: bool) -> None:
    """Options for running the network over the data. `anchors`: whether anchors are matched as in training."""
    add = parser.add_argument
    if anchors:
        add("--drop-difficult", action="store_true", help="match anchors without VOC's difficult objects")
    add("--batch-size", type=whole(1, MOST_IMAGES), default=8, metavar="N", help="images at a time (default: 8)")
    add("--device", metavar=METAVAR, help="where to compute (default: cuda if there is one)")
    add("--workers", type=whole(0, MOST_WORKERS), default=0, metavar="N", help="threads that read ahead (default: 0)")
    add("--builder", metavar="NAME", help="builder of your own detector: my_lab.models:my_detector")


def _ask_where(options: Namespace, name: str) -> None:
    """Check, before anything is computed, that the requested files can be written and that none is lost by it."""
    if options.out is None and options.html is None:
        return
    from singleshot.evaluation.detections import writable

    if options.out is not None:
        names = [f"{name}.json", f"{name}.png", _list_name(name)]
        names += sorted(path.name for path in Path(options.out).glob(f"{name}_*") if path.suffix in _PICTURES)
        writable(options.out, names, overwrite=options.overwrite)
    if options.html is not None:
        page = to_path(options.html)
        if page.suffix.lower() not in _PAGES or page.is_dir():
            raise UserError(f"--html {options.html}: give the name of a file that ends in .html, such as page.html")
        writable(page.parent, [page.name], overwrite=options.overwrite)


def _open(options: Namespace, class_names: Sequence[str] | None = None) -> Dataset:
    from singleshot.data.open import open_dataset

    dataset = open_dataset(
        options.data, split=options.split, prefer=PREFERRED, class_names=class_names, **reading(options)
    )
    if class_names is not None:
        say(f"{dataset.root}: {len(dataset)} images of split {dataset.split!r} ({dataset.format})")
    say_elsewhere(dataset)
    return dataset


def _about(what: str, dataset: Dataset) -> str:
    return f"{what} on {dataset.root}, {len(dataset)} images of split {dataset.split!r}"
