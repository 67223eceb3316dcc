"""The figures of the analyses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from singleshot.analysis.curves import RunAnalysis
from singleshot.analysis.errors import ErrorAnalysis
from singleshot.analysis.iou import IoUAnalysis, ScoreAnalysis
from singleshot.analysis.losses import LossDistribution
from singleshot.errors import UserError
from singleshot.files import write_atomically

# Okabe and Ito's colours, which everybody can tell apart; lines differ in their dashes too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
_FEW = 1500  # so many points are drawn one by one
_CELLS = 40  # of the histogram, along each side
_LEAST = 10  # detections that a mean is drawn of


def plot_losses(distribution: LossDistribution, path: str | Path) -> Path:
    """Draw the cumulative loss of positives and negatives (Figure 4 of the focal loss paper) into a PNG, PDF or SVG."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    kinds = {"positive anchors": distribution.positives, "negative anchors": distribution.negatives}
    for panel, (title, histogram) in zip(figure.subplots(1, 2, sharey=True), kinds.items(), strict=True):
        for row, gamma in enumerate(distribution.gammas):
            style: Any = {"color": _COLOURS[row % len(_COLOURS)], "linestyle": _DASHES[row % len(_DASHES)]}
            panel.plot(*histogram.curve(row), label=f"$\\gamma$ = {gamma:g}", linewidth=1.8, **style)
        panel.set_title(f"{len(histogram):,} {title}", fontsize=10)
        panel.set_xlabel("fraction of the anchors, easiest first")
        panel.set(xlim=(0, 1.005), ylim=(0, 1.005))
        _quiet(panel)
        panel.set_xticks(np.linspace(0, 1, 6), ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    first = figure.axes[0]
    first.set_ylabel("cumulative normalised loss")
    first.legend(frameon=False, loc="upper left")
    return _write(figure, path)


def plot_iou(analysis: IoUAnalysis, path: str | Path) -> Path:
    """Draw score against IoU for each way to score, and what NMS lost, into a PNG, PDF or SVG."""
    ways = analysis.scores
    figure = Figure(figsize=(3 * len(ways) + 3.3, 3.3), layout="constrained")
    panels = figure.subplots(1, len(ways) + 1)
    grids = [np.histogram2d(way.scores, way.ious, bins=_CELLS, range=((0, 1), (0, 1)))[0] for way in ways]
    edges = np.linspace(0, 1, _CELLS + 1)
    tones = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.2, 1, 256)))  # one detection must be seen
    norm = LogNorm(1, max(2.0, *(float(grid.max()) for grid in grids)))
    mesh = None
    for panel, way, grid in zip(panels, ways, grids, strict=False):
        if max(len(each.scores) for each in ways) > _FEW:
            mesh = panel.pcolormesh(edges, edges, np.ma.masked_equal(grid.T, 0), cmap=tones, norm=norm, rasterized=True)
        else:
            panel.scatter(way.scores, way.ious, s=6, color=_COLOURS[0], alpha=0.4, linewidths=0)
        _draw_means(panel, way)
        panel.axhline(analysis.min_iou, color="0.45", linewidth=0.8, linestyle=":")
        every, well = way.detections(), way.detections(analysis.min_iou)
        panel.set_title(
            f"{_named(way)}\nSpearman {_number(every.spearman)} ({_number(well.spearman)} above the line)",
            fontsize=10,
        )
        panel.set_xlabel("score")
        panel.set(xlim=(0, 1), ylim=(0, 1.01), box_aspect=1)
        _quiet(panel)
    panels[0].set_ylabel("IoU with the best object")
    if mesh is not None:
        figure.colorbar(mesh, ax=list(panels[: len(ways)]), label="detections", shrink=0.75, pad=0.01)
    _draw_lost(panels[-1], analysis)
    return _write(figure, path)


def plot_errors(analysis: ErrorAnalysis, path: str | Path) -> Path:
    """Draw what each kind of error costs, and what became of the objects by size, into a PNG, PDF or SVG."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    gains = sorted(analysis.gains.items(), key=lambda one: one[1])
    bars = left.barh([kind for kind, _ in gains], [100 * gain for _, gain in gains], color=_COLOURS[0])
    left.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    left.margins(x=0.12)
    left.set_title(f"AP50 {100 * analysis.AP50:.1f}: what mending would add", fontsize=10)
    left.set_xlabel("points")
    _quiet(left)
    base = np.zeros(len(analysis.sizes))
    fates = {"found": _COLOURS[2], "misplaced": _COLOURS[1], "confused": _COLOURS[4], "missed": "0.75"}
    for fate, colour in fates.items():
        share = np.array([getattr(one, fate) / max(1, one.objects) for one in analysis.sizes])
        names = [one.name.replace(" px", "") for one in analysis.sizes]
        right.bar(names, share, bottom=base, color=colour, label=fate, width=0.75)
        base += share
    right.set_title(f"objects, at scores from {analysis.min_score:.2f} on", fontsize=10)
    right.set_xlabel("size (root of the area) in pixels")
    right.tick_params(axis="x", labelsize=8)
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set_ylim(0, 1)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=4, frameon=False, fontsize=8)
    _quiet(right)
    return _write(figure, path)


def plot_runs(analysis: RunAnalysis, path: str | Path) -> Path:
    """Draw losses and validations over the steps into a PNG, PDF or SVG; of one run the terms and metrics apart."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    figures: dict[str, tuple[list[int], list[float]]] = {}
    alone = len(analysis.runs) == 1
    for run in analysis.runs:
        if alone:
            losses |= {term: (run.steps, values) for term, values in run.losses.items()}
        else:
            losses[run.name] = (run.steps, run.loss)
        at = [one.step for one in run.validations]
        for metric in dict.fromkeys((run.metric, *(("coco.AP", "coco.AP50", "coco.AP75") if alone else ()))):
            name = metric if alone else f"{run.name}: {metric}"
            figures[name] = (at, [100 * one.value(metric) for one in run.validations])
    for panel, lines, marker in ((left, losses, ""), (right, figures, "o")):
        for k, (name, (steps, values)) in enumerate(lines.items()):
            style: Any = {"color": _COLOURS[k % len(_COLOURS)], "linestyle": _DASHES[k % len(_DASHES)]}
            panel.plot(steps, values, label=name, linewidth=1.5, marker=marker, markersize=3, **style)
        panel.set_xlabel("steps")
        panel.set_ylim(bottom=0)
        panel.set_xlim(left=0)
        _quiet(panel)
        if any(steps for steps, _ in lines.values()):
            panel.legend(frameon=False, fontsize=8)
    left.set_title("loss", fontsize=10)
    right.set_title("validation, points", fontsize=10)
    return _write(figure, path)


def _draw_means(panel: Any, way: ScoreAnalysis) -> None:
    """The mean IoU of the detections of each tenth of the scores."""
    place = np.minimum((way.scores * 10).astype(int), 9)
    counts = np.bincount(place, minlength=10)
    means = np.where(counts >= _LEAST, np.bincount(place, way.ious, 10) / np.maximum(counts, 1), np.nan)
    centres = (np.arange(10) + 0.5) / 10
    panel.plot(centres, means, "o-", color=_COLOURS[3], markersize=3.5, linewidth=1.5, label="mean IoU")
    if np.isfinite(means).any():
        panel.legend(frameon=False, loc="lower right", fontsize=8)


def _draw_lost(panel: Any, analysis: IoUAnalysis) -> None:
    for k, way in enumerate(analysis.scores):
        share = [
            lost / reachable if reachable else np.nan for lost, reachable in zip(way.lost, way.reachable, strict=True)
        ]
        style: Any = {"color": _COLOURS[k], "linestyle": _DASHES[k], "marker": "os^"[k % 3]}
        panel.plot(analysis.thresholds, share, label=_named(way), linewidth=1.8, markersize=4.5, **style)
    panel.set_title("objects whose well-placed\nboxes NMS lost", fontsize=10)
    panel.set_xlabel("IoU that counts as well placed")
    panel.set_ylabel("lost, of those that had one")
    panel.set(box_aspect=1, xticks=analysis.thresholds)
    panel.set_ylim(0, max(0.05, panel.get_ylim()[1]))
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.legend(frameon=False, loc="upper left", fontsize=8)
    _quiet(panel)


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"


def _named(way: ScoreAnalysis) -> str:
    return way.name if way.alpha is None else f"{way.name}, $\\alpha$ = {way.alpha:g}"


def _quiet(panel: Any) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)


def _write(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "pdf", "svg"):
        raise UserError(f"{path}: a figure is written as .png, .pdf or .svg")
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=200)
    write_atomically(path, picture.getvalue())
    return path
