"""`singleshot analyse loss`: how the loss is spread over easy and hard anchors."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.analyse import add_arguments, opened, reported
from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser

EPILOG = """\
Figure 4 of the focal loss paper: the focal loss of every anchor, whatever the model was trained with, positives and
negatives apart; printed is the share of it that the hardest anchors carry. Where the model has a softmax over classes
and background, the loss is -(1 - p)^gamma log p of the right one. --out writes loss.png and loss.json."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("analyse loss", "Shows how the loss is spread over easy and hard anchors.", EPILOG)
    add_arguments(parser)
    parser.add_argument(
        "--gammas",
        type=_gammas,
        default="0,0.5,1,2",
        metavar="G,G,...",
        help="focusing parameters (default: %(default)s)",
    )
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Measure, draw and list."""
    from singleshot.analysis.losses import HARDEST, loss_distribution
    from singleshot.cli.progress import shown

    detector, dataset, sizes = opened(options)
    with shown("images") as progress:
        found = loss_distribution(detector, dataset, gammas=options.gammas, progress=progress, **sizes)
    rows = [
        [kind, f"{len(histogram):,}", f"{gamma:g}", *(f"{100 * histogram.share(row, part):.1f}" for part in HARDEST)]
        for kind, histogram in (("positive", found.positives), ("negative", found.negatives))
        for row, gamma in enumerate(found.gammas)
    ]
    header = ["anchors", "number", "gamma", *(f"{100 * part:g}%" for part in HARDEST)]
    text = f"Share of the loss (%) that the hardest anchors carry; {found.link} outputs\n\n{table(rows, header=header)}"
    return reported(found, text, options, "loss")


def _gammas(text: str | list[float]) -> list[float]:
    if isinstance(text, list):  # the parser asks once more, with its own result
        return text
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value < math.inf for value in values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected different numbers, 0 or more, such as 0,0.5,1,2, got {text!r}")
    return values
