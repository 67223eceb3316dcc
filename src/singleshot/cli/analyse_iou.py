"""`singleshot analyse iou`: how scores go with the IoU of the boxes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from singleshot.cli.analyse import add_arguments, opened, reported
from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser, fraction

if TYPE_CHECKING:
    from singleshot.analysis.iou import IoUAnalysis

EPILOG = """\
For the class score alone, for the IoU-aware score where the model has an IoU head, and with --oracle for the true IoU
in its place: correlation of score and IoU, well-placed boxes that NMS lost, and AP.
--out writes iou.png and iou.json."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("analyse iou", "Shows how scores go with the IoU of the boxes, and what NMS loses.", EPILOG)
    add_arguments(parser)
    add = parser.add_argument
    add(
        "--min-score", type=fraction, default=0.05, metavar="S", help="detections below are not counted (default: 0.05)"
    )
    add("--min-iou", type=fraction, default=0.5, metavar="T", help="IoU that is called well placed (default: 0.5)")
    add(
        "--alpha",
        type=_alpha,
        default="model",
        metavar="A|none",
        help="score is p^A IoU^(1-A), none: p IoU (default: the model's, else 0.5)",
    )
    add("--oracle", action="store_true", help="also with the true IoU in place of the predicted one")
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Measure, draw and list."""
    from singleshot.analysis.iou import iou_analysis
    from singleshot.cli.progress import shown

    detector, dataset, sizes = opened(options)
    with shown("images") as progress:
        found = iou_analysis(
            detector,
            dataset,
            min_score=options.min_score,
            min_iou=options.min_iou,
            alpha=None if options.alpha == "none" else options.alpha,
            oracle=options.oracle,
            progress=progress,
            **sizes,
        )
    text = _text(found)
    return reported(found, text, options, "iou")


def _text(found: IoUAnalysis) -> str:
    pairs, lost, metrics = [], [], []
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
        metrics.append([way.name, *("-" if ap < 0 else f"{100 * ap:.1f}" for ap in way.metrics.values())])
    levels = [f"IoU {iou:g}" for iou in found.thresholds]
    return "\n\n".join([
        f"Score against IoU ({found.images} images, {found.objects:,} objects; scores from {found.min_score:g} on)",
        table(pairs, header=["score", "of", "number", "Pearson", "Spearman"]),
        "Objects that have a box so well placed before NMS, and those of them that have none after it",
        table(lost, header=["score", "objects", *levels]),
        table(metrics, header=["score", *found.scores[0].metrics]),
    ])  # fmt: skip


def _alpha(text: str) -> float | str:
    if text in ("none", "model"):
        return text
    try:
        return fraction(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, or none, got {text!r}") from None
