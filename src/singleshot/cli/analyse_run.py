"""`singleshot analyse run`: how training runs went, one or several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.cli.analyse import reported
from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser

if TYPE_CHECKING:
    from singleshot.analysis.curves import Curves

EPILOG = """\
A run may still be going on. The loss is the mean of the last logged steps; "best" is the best of the validations, by
what the recipe calls best. --out writes run.png, the curves, and run.json."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("analyse run", "Shows how training runs went: losses and validations.", EPILOG)
    parser.usage = "singleshot analyse run RUN [RUN ...] [flags]"
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--out", metavar="DIR", help="write the figure and the numbers into this folder")
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Read, draw and list."""
    from singleshot.analysis.curves import analyse_runs

    found = analyse_runs(options.runs)
    header = ["run", "steps", "epochs", "loss", "best of", "best", "at epoch", "last", "AP", "AP50", "AP75"]
    text = table([_row(curves) for curves in found.runs], header=header)
    return reported(found, text, options, "run")


def _row(curves: Curves) -> list[Any]:
    steps = f"{curves.steps[-1]:,} of {curves.total:,}"
    row = [curves.name, steps, f"{curves.epochs[-1]:.1f}", curves.loss[-1], curves.metric]
    if curves.best is None:
        return [*row, *[None] * 6]
    last = curves.validations[-1]
    figures = [100 * last.value(name) for name in (curves.metric, "coco.AP", "coco.AP50", "coco.AP75")]
    best = f"{100 * curves.best.value(curves.metric):.1f}"
    return [*row, best, f"{curves.best.epoch:.1f}", *(f"{figure:.1f}" for figure in figures)]
