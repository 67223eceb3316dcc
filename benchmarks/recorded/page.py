"""The parts of docs/results.md that are generated from recorded lines, in Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from recorded import markdown
from recorded.plan import AIMS, Aim

Line = Mapping[str, Any]
_COLUMNS = ("coco.AP", "coco.AP50", "coco.AP75", "voc07.mAP", "voc10.mAP")
_WIDTH = 128


def table(dataset: str, lines: Iterable[Line]) -> str:
    """The runs on one dataset, and how far each is from its aim."""
    metrics = (Aim(metric, 0.0).name for metric in _COLUMNS)
    header = ["run", "detector", *metrics, "to reach", "minutes", "on", "commit", "date"]
    rows = []
    for line in lines:
        if line["dataset"] == dataset:
            figures = [f"{value(line, metric):.3f}" for metric in _COLUMNS]
            when = [f"{line['minutes']:g}", processor(line), line["commit"], line["date"]]
            rows.append([line["name"], line["detector"], *figures, reached(line), *when])
    return markdown.table(header, rows)


def processor(line: Line) -> str:
    """The processor's name without trademark signs; the oldest lines do not have it."""
    machine = line["machine"]
    return "-" if isinstance(machine, str) else re.sub(r"\(R\)| Processor", "", machine["cpu"])


def classes(dataset: str, lines: Iterable[Line]) -> str:
    """The AP of each class in every run on one dataset, in points of the dataset's first aim (COCO's: AP50)."""
    found = [line for line in lines if line["dataset"] == dataset]
    group = next((aim.metric.split(".")[0] for aim in AIMS.get(dataset, ())), "coco")
    metric = "AP50" if group == "coco" else group
    rows = []
    for name, numbers in found[0]["metrics"]["per_class"].items():
        values = (line["metrics"]["per_class"][name][metric] for line in found)
        figures = (f"{100 * ap:.1f}" if numbers["boxes"] else "-" for ap in values)  # no object of the class: no AP
        rows.append([name, str(numbers["boxes"]), *figures])
    return markdown.table(["class", "objects", *(line["name"] for line in found)], rows)


def reached(line: Line) -> str:
    """Each aim of the run's dataset, and whether it was reached."""
    said = []
    for aim in AIMS.get(line["dataset"], ()):
        if aim.detector in (None, line["detector"]):
            short = aim.figure - value(line, aim.metric)
            said.append(f"{aim.name} {aim.figure:g}: " + ("yes" if short <= 0 else f"short by {short:.3f}"))
    return "; ".join(said) or "-"


def value(line: Line, metric: str) -> float:
    """A metric of a line, by its dotted path."""
    group, name = metric.split(".")
    return float(line["metrics"][group][name])


def run(line: Line) -> str:
    """The command of one run and COCO AP on `val` by epoch."""
    points = ", ".join(f"{epoch:g}:\0{100 * ap:.1f}" for epoch, ap in line["curve"])
    found = {name: numbers["AP50"] for name, numbers in line["metrics"]["per_class"].items() if numbers["boxes"]}
    by_class = ", ".join(f"{name} {ap:.3f}" for name, ap in found.items())
    together = re.sub(r"(--\S+) (?!--)", "\\1\0", line["command"])  # an option stays with its value
    words = textwrap.wrap(together, _WIDTH - 6, break_long_words=False, break_on_hyphens=False)
    command = " \\\n    ".join(part.replace("\0", " ") for part in words)
    prose = [f"AP50 by class: {by_class}.", f"AP by epoch: {points}."]
    wrapped = (textwrap.fill(text, _WIDTH, break_on_hyphens=False).replace("\0", " ") for text in prose)
    return "\n\n".join([f"```\n{command}\n```", *wrapped])
