"""An analysis of scores and overlaps as tables and a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from singleshot.analysis.figure import Axis, Figure, Line, Panel, Points, Rule
from singleshot.analysis.section import Cell, Column, Section, Table

if TYPE_CHECKING:
    from singleshot.analysis.iou.result import IoUAnalysis, ScoreAnalysis

_LEAST = 10  # detections that a mean needs to be drawn
_ORANGE = 3


def iou_section(found: IoUAnalysis) -> Section:
    """Correlation, what suppression lost, and AP, for each kind of score."""
    pairs: list[list[Cell]] = []
    lost: list[list[Cell]] = []
    metrics: list[list[Cell]] = []
    for way in found.scores:
        kinds = {
            "detections": way.detections(),
            f"with IoU >= {found.min_iou:g}": way.detections(found.min_iou),
            "positive anchors": way.positives(),
        }
        pairs += [[way.name, kind, one.count, one.pearson, one.spearman] for kind, one in kinds.items()]
        shares = [
            f"{gone} ({100 * gone / max(1, had):.1f}%)" for gone, had in zip(way.lost, way.reachable, strict=True)
        ]
        lost += [[way.name, "reachable", *map(str, way.reachable)], [way.name, "lost", *shares]]
        metrics.append([way.name, *(None if ap < 0 else 100 * ap for ap in way.metrics.values())])
    levels = [f"IoU {iou:g}" for iou in found.thresholds]
    return Section(
        "Score against IoU",
        f"Score against IoU ({found.images} images, {found.objects:,} objects; scores of {found.min_score:g} or more)",
        (
            Table(["score", "of", "number", "Pearson", "Spearman"], pairs),
            iou_figure(found),
            Table(
                ["score", "objects", *levels],
                lost,
                title="Objects with a box of at least this IoU before NMS, and how many of them have none after NMS",
            ),
            Table(["score", *(Column(name, ".1f") for name in found.scores[0].metrics)], metrics),
        ),
    )


def iou_figure(found: IoUAnalysis) -> Figure:
    """Score against IoU for each kind of score, and what suppression lost."""
    return Figure(
        [*(_cloud(way, found.min_iou) for way in found.scores), _lost(found)],
        alt="Score against IoU of the detections, a panel for each kind of score, and the share of the objects whose "
        "well-placed boxes NMS lost.",
    )


def _cloud(way: ScoreAnalysis, min_iou: float) -> Panel:
    """The detections, and the mean IoU of those in each tenth of the scores."""
    place = np.minimum((way.scores * 10).astype(int), 9)
    counts = np.bincount(place, minlength=10)
    means = np.where(counts >= _LEAST, np.bincount(place, way.ious, 10) / np.maximum(counts, 1), np.nan)
    every, well = way.detections(), way.detections(min_iou)
    return Panel(
        [
            Points(way.scores.tolist(), way.ious.tolist(), label="detections"),
            Line(((np.arange(10) + 0.5) / 10).tolist(), means.tolist(), "mean IoU", markers=True, colour=_ORANGE),
            Rule(min_iou),
        ],
        f"{_named(way)}\nSpearman {_number(every.spearman)} ({_number(well.spearman)} above the line)",
        Axis("score", 0, 1),
        Axis("IoU with the best object", 0, 1.01),
        legend="lower right",
        square=True,
    )


def _lost(found: IoUAnalysis) -> Panel:
    shares = [
        [lost / had if had else float("nan") for lost, had in zip(way.lost, way.reachable, strict=True)]
        for way in found.scores
    ]
    highest = max((share for one in shares for share in one if np.isfinite(share)), default=0.0)
    return Panel(
        [
            Line(found.thresholds, share, _named(way), markers=True)
            for way, share in zip(found.scores, shares, strict=True)
        ],
        "objects whose well-placed\nboxes NMS lost",
        Axis("IoU that counts as well placed", ticks=found.thresholds),
        Axis("lost, of those that had one", 0, max(0.05, 1.05 * highest), percent=True),
        legend="upper left",
        square=True,
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"


def _named(way: ScoreAnalysis) -> str:
    return way.name if way.alpha is None else f"{way.name}, α = {way.alpha:g}"
