"""Accuracy against time, as in Figure 2 of the paper of RetinaNet: one line for each engine and precision."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleshot.errors import UserError
from singleshot.files import write_atomically
from singleshot.paths import to_path

if TYPE_CHECKING:
    from singleshot.benchmarking.report import Benchmark, Line

# M. Okabe and K. Ito, Color Universal Design (2008): the colours that are dark enough for text. Markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SUFFIXES = (".png", ".svg", ".pdf")


def check(path: str | Path) -> Path:
    """The path of a plot. Raises `UserError` for a kind of file that is not drawn."""
    found = to_path(path)
    if found.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    return found


def draw(found: Benchmark, path: str | Path) -> None:
    """Draw the lines of a benchmark, those of the smallest batch.

    The height is AP in per cent if it was measured for all of them. If not, it is the network's work in GFLOPs: no
    speed is set against an accuracy that nobody measured here. Points of one height are then one model on several
    engines.

    Raises:
        UserError: there is nothing to draw, the file's name ends otherwise, or it cannot be written.
    """
    path = check(path)
    least = min((line.batch for line in found.lines), default=1)
    lines = [line for line in found.lines if line.batch == least]
    accurate = bool(lines) and all(line.ap is not None for line in lines)
    heights = [line.ap if accurate else line.gflops for line in lines]
    points = [(line, height) for line, height in zip(lines, heights, strict=True) if height is not None]
    if not points:
        raise UserError(
            "--plot: nothing to draw: it shows accuracy against time, and without --data the network's GFLOPs, which "
            "an exported file does not say; give --data, or the weights file"
        )
    write_atomically(path, _image(points, accurate, found, path.suffix.lower()[1:]))


def _image(points: list[tuple[Line, float]], accurate: bool, found: Benchmark, kind: str) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import patheffects, pyplot, ticker

    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    figure, axes = pyplot.subplots(figsize=(8, 5.2), dpi=150, layout="constrained")
    series = list(dict.fromkeys((line.engine, line.precision) for line, _ in points))
    for number, (engine, precision) in enumerate(series):
        mine = [point for point in points if (point[0].engine, point[0].precision) == (engine, precision)]
        mine.sort(key=lambda point: point[0].ms.median)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x, y = [line.ms.median for line, _ in mine], [height for _, height in mine]
        spread = [
            [line.ms.median - line.ms.low for line, _ in mine],
            [line.ms.high - line.ms.median for line, _ in mine],
        ]
        axes.errorbar(x, y, xerr=spread, color=colour, marker=marker, markersize=6, linewidth=1.5, elinewidth=1,
                      label=f"{engine} {precision}")  # fmt: skip
    for model in dict.fromkeys((line.model, line.input) for line, _ in points):
        slowest = max(((line.ms.high, height) for line, height in points if (line.model, line.input) == model))
        text: dict[str, Any] = {"textcoords": "offset points", "color": "0.25", "path_effects": halo}
        axes.annotate(f"{model[0]}, {model[1][0]}x{model[1][1]}", slowest, (8, 0), va="center", fontsize=8, **text)
    axes.set_xlabel(f"time for each image (ms), from file to detections, batch {points[0][0].batch}: median, quartiles")
    axes.set_ylabel("AP (%)" if accurate else "work of the network (GFLOPs for each image)")
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axes.set_xscale("log")
    if not accurate:
        axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.35)  # names stand to the right
    axes.margins(y=0.14)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.set_title(found.machine.line(), fontsize=8.5, color="0.35")
    into = io.BytesIO()
    figure.savefig(into, format=kind)
    pyplot.close(figure)
    return into.getvalue()
