"""Accuracy against time per image (Figure 2 of the RetinaNet paper). Times are measured here, AP is given or measured.

    python benchmarks/speed_accuracy.py --point retinanet_r50@400:30.5 --point retinanet_r50@500:32.5 ... --out FILE.png
    python benchmarks/speed_accuracy.py --point runs/a/last.safetensors --data DIR --split val --out FILE.png

A point is WHAT[@SIZE][:AP]. WHAT is a named variant (`singleshot models`) or a weights file. SIZE is another image size
of a variant. Points of one WHAT are joined by a line. AP is in per cent, or a JSON file of `singleshot evaluate
--json`. A weights file without AP is measured on --data. `label=WHAT...` sets the point's name.

The detectors take turns, one image at a time, in a new random order in each round. The time is the median, from the
image in memory to boxes. A named variant has random weights with meaningless scores, so its threshold is set so high
that no box passes. Its time does not include suppression, and the JSON file beside the plot says so ("weights":
"random").
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import singleshot as ss
from singleshot.errors import UserError
from singleshot.files import write_atomically
from singleshot.postprocess import vary

# M. Okabe and K. Ito, Color Universal Design (2008): the colours that are dark enough for text. Markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Point:
    """One detector of the plot."""

    what: str  # a named variant or a weights file
    size: int | None = None  # pixels; None: the detector's own
    accuracy: str | None = None  # AP in per cent, or a JSON file; None: to be measured
    label: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether `what` is a weights file; otherwise it is a named variant."""
        return self.what.endswith(".safetensors")

    @property
    def series(self) -> str:
        """The name that joins points."""
        if self.label is not None:
            return self.label
        path = Path(self.what)
        return f"{path.parent.name}/{path.stem}" if self.is_file and path.parent.name else path.stem


def parse_point(text: str) -> Point:
    """Read `[label=]WHAT[@SIZE][:AP]`.

    Raises:
        UserError: the text has another form; the message says what is wrong.
    """
    label, equals, rest = text.partition("=")
    rest = rest if equals else text
    head, colon, accuracy = rest.rpartition(":")
    if not colon or (len(head) == 1 and head.isalpha()):  # no AP, or only the letter of a drive
        head, accuracy = rest, ""
    what, at, size = head.rpartition("@")
    if not at:
        what, size = head, ""
    if not what or (equals and not label) or (at and not size.isdigit()):
        raise UserError(
            f"--point {text!r}: expected [LABEL=]WHAT[@SIZE][:AP], such as retinanet_r50@500:32.5 or "
            "runs/a/last.safetensors:58.1"
        )
    point = Point(what, int(size) if size else None, accuracy or None, label if equals else None)
    if point.is_file and point.size is not None:
        raise UserError(f"--point {text!r}: @SIZE is for named variants; a weights file has its own size")
    return point


def given_accuracy(text: str) -> float:
    """AP in per cent from a number, or from the JSON of `singleshot evaluate`.

    Raises:
        UserError: it is neither of the two, or a number that is not between 0 and 100.
    """
    try:
        number = float(text)
    except ValueError:
        try:
            number = 100.0 * float(json.loads(Path(text).read_text())["coco"]["AP"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"AP {text!r}: expected a number in per cent or a JSON file of `singleshot evaluate --json` ({error})"
            ) from None
    if not 0 <= number <= 100:
        raise UserError(f"AP {text!r}: {number:g} is not between 0 and 100 per cent")
    return number


def interleaved(
    actions: Sequence[Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 2,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each action in each round. All take turns, so that a disturbance affects all of them."""
    times: list[list[float]] = [[] for _ in actions]
    order = list(range(len(actions)))
    shuffle = random.Random(seed)
    for turn in range(-warm_up, rounds):
        shuffle.shuffle(order)
        for i in order:
            start = clock()
            actions[i]()
            if turn >= 0:
                times[i].append(1e3 * (clock() - start))
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3
    return {"median_ms": round(middle, 3), "quartile1_ms": round(low, 3), "quartile3_ms": round(high, 3)}


def build(point: Point) -> ss.Detector:
    """The detector of a point."""
    if point.is_file:
        return ss.load(point.what)
    torch.manual_seed(0)
    size = {} if point.size is None else {"image_size": point.size}
    detector = ss.create(point.what, num_classes=80, **size)
    # A sigmoid at its prior passes nowhere, a softmax of random numbers everywhere. A trained network does neither.
    detector.postprocess = vary(detector.postprocess, "threshold", 1.0)
    return detector


def accuracy_of(point: Point, detector: ss.Detector, options: argparse.Namespace) -> float:
    """AP in per cent: as given, or measured on the data.

    Raises:
        UserError: the AP of a point is not given and cannot be measured.
    """
    if point.accuracy is not None:
        return given_accuracy(point.accuracy)
    if not point.is_file or options.data is None:
        raise UserError(
            f"{point.what}: no AP: give it (--point {point.what}:AP), or give a trained weights file and --data"
        )
    from singleshot.evaluation.detect_dataset import detect_dataset

    dataset = ss.open_dataset(options.data, split=options.split, class_names=detector.class_names)
    print(f"{point.series}: measuring AP on {len(dataset)} images", file=sys.stderr)
    return 100.0 * ss.evaluate(dataset, detect_dataset(detector, dataset)).coco.numbers["AP"]


def measured(points: Sequence[Point], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One entry per point: AP, time, size."""
    detectors, accuracies = [], []
    for point in points:
        detector = build(point).to(options.device).eval()
        accuracies.append(accuracy_of(point, detector, options))
        detector.precision = options.precision
        detectors.append(detector)
    height, width = options.input
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def detect(detector: ss.Detector) -> Callable[[], list[dict[str, Tensor]]]:
        @torch.inference_mode()
        def once() -> list[dict[str, Tensor]]:
            found: list[dict[str, Tensor]] = detector([image])
            if detector.device.type == "cuda":
                torch.cuda.synchronize()
            return found

        return once

    times = interleaved([detect(detector) for detector in detectors], rounds=options.rounds)
    return [
        {
            "series": point.series,
            "size": list(detector.image_size),
            "mark": str(point.size) if point.size is not None else "",
            "AP": round(accuracy, 2),
            "AP is": "given" if point.accuracy is not None else "measured",
            "weights": "trained" if point.is_file else "random",
            **summary(taken),
        }
        for point, detector, accuracy, taken in zip(points, detectors, accuracies, times, strict=True)
    ]


def draw(entries: Sequence[dict[str, Any]], path: Path, about: str) -> None:
    """Draw the plot: a line and markers for each series, its name beside the slowest point, sizes below the points."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patheffects, pyplot

    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    figure, axes = pyplot.subplots(figsize=(7.5, 5), dpi=150, layout="constrained")
    series = list(dict.fromkeys(entry["series"] for entry in entries))
    for number, name in enumerate(series):
        mine = sorted((entry for entry in entries if entry["series"] == name), key=lambda entry: entry["median_ms"])
        colour = COLOURS[number % len(COLOURS)]
        x, y = [entry["median_ms"] for entry in mine], [entry["AP"] for entry in mine]
        spread = [[entry["median_ms"] - entry["quartile1_ms"] for entry in mine],
                  [entry["quartile3_ms"] - entry["median_ms"] for entry in mine]]  # fmt: skip
        marker = MARKERS[number % len(MARKERS)]
        axes.errorbar(x, y, xerr=spread, color=colour, marker=marker, markersize=6, linewidth=1.5, elinewidth=1)
        text: dict[str, Any] = {"textcoords": "offset points", "color": colour, "path_effects": halo}
        for entry in mine:
            if entry["mark"]:
                at = (entry["median_ms"], entry["AP"])
                axes.annotate(entry["mark"], at, (0, -13), ha="center", fontsize=7.5, **text)
        at = (mine[-1]["quartile3_ms"], mine[-1]["AP"])
        axes.annotate(name, at, (7, 0), ha="left", va="center", fontsize=9, fontweight="bold", **text)
    axes.set_xlabel("time per image (ms), median and quartiles")
    axes.set_ylabel("AP (%)")
    axes.margins(y=0.14)
    axes.set_xlim(0, 1.35 * max(entry["quartile3_ms"] for entry in entries))  # names stand to the right
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(about, fontsize=9, color="0.35")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def described(options: argparse.Namespace) -> str:
    """The machine and the settings of the measurement, in one line."""
    if options.device.startswith("cuda"):
        where = torch.cuda.get_device_name(options.device)
    else:
        where = f"CPU ({platform.machine()}), {torch.get_num_threads()} of {os.cpu_count()} cores"
    height, width = options.input
    return f"{where}, {options.precision}, batch 1, image {width} x {height}, torch {torch.__version__}"


def image_size(text: str) -> tuple[int, int]:
    """`640x480` (width x height) -> (height, width)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(height), int(width)


def main(words: list[str] | None = None) -> int:
    """Run the command line. The exit code is 0, or 2 if the user has to correct something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--point", action="append", required=True, help="[LABEL=]WHAT[@SIZE][:AP]; may be repeated")
    parser.add_argument("--data", type=Path, help="dataset to measure AP on, if it is not given")
    parser.add_argument("--split", default="val")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--input", type=image_size, default=(480, 640), help="WIDTHxHEIGHT of the image (640x480)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("speed_accuracy.png"), help="the plot; a JSON goes beside it")
    options = parser.parse_args(words)
    if options.rounds < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--rounds and --threads: expected 1 or more")
    if options.out.suffix.lower() != ".png":
        parser.error(f"--out {options.out}: expected a name that ends in .png")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        entries = measured([parse_point(text) for text in options.point], options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    about = described(options)
    draw(entries, options.out, about)
    content = {"about": about, "rounds": options.rounds, "points": entries}
    write_atomically(options.out.with_suffix(".json"), (json.dumps(content, indent=2) + "\n").encode())
    for entry in entries:
        print(f"{entry['series']:<32} {entry['mark']:>5} {entry['AP']:6.1f} AP ({entry['AP is']})  "
              f"{entry['median_ms']:8.1f} ms")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
