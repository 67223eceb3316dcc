"""How runs went, as a table and a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleshot.analysis.figure import Axis, Figure, Line, Panel
from singleshot.analysis.section import Cell, Column, Section, Table

if TYPE_CHECKING:
    from singleshot.analysis.run.curves import Curves, RunAnalysis

_COCO = ("coco.AP", "coco.AP50", "coco.AP75")


def run_section(found: RunAnalysis) -> Section:
    """A row for each run."""
    heads: list[Column | str] = [
        "run",
        "steps",
        Column("epochs", ".1f"),
        "loss",
        "best of",
        *(Column(name, ".1f") for name in ("best", "at epoch", "last", "AP", "AP50", "AP75")),
    ]
    return Section("How the runs went", "", (Table(heads, [_row(curves) for curves in found.runs]), run_figure(found)))


def run_figure(found: RunAnalysis) -> Figure:
    """Losses and validations over the steps; for a single run each term and metric has its own line."""
    losses, figures = [], []
    alone = len(found.runs) == 1
    for run in found.runs:
        if alone:
            losses += [Line(run.steps, values, term) for term, values in run.losses.items()]
        else:
            losses.append(Line(run.steps, run.loss, run.name))
        for metric in dict.fromkeys((run.metric, *(_COCO if alone else ()))):
            known = [(one.step, 100 * value) for one in run.validations if (value := one.value(metric)) is not None]
            at, values = [step for step, _ in known], [value for _, value in known]
            figures.append(Line(at, values, metric if alone else f"{run.name}: {metric}", markers=True))
    return Figure(
        [
            Panel(losses, "loss", Axis("steps", low=0), Axis(low=0)),
            Panel(figures, "validation, points", Axis("steps", low=0), Axis(low=0)),
        ],
        alt="The losses over the steps on the left, the validations on the right.",
    )


def _row(curves: Curves) -> list[Cell]:
    done, epochs, loss = (values[-1] if values else None for values in (curves.steps, curves.epochs, curves.loss))
    steps = f"{done or 0:,} of {curves.total:,}" if curves.total else f"{done or 0:,}"
    row: list[Cell] = [curves.name, steps, epochs, loss, curves.metric]
    if curves.best is None:
        return [*row, *[None] * 6]
    last = curves.validations[-1]
    figures = [_points(last.value(name)) for name in (curves.metric, *_COCO)]
    return [*row, _points(curves.best.value(curves.metric)), curves.best.epoch, *figures]


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value
