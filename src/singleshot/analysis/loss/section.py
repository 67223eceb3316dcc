"""An analysis of the loss as a table and a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleshot.analysis.figure import Axis, Figure, Line, Panel
from singleshot.analysis.section import Cell, Column, Section, Table

if TYPE_CHECKING:
    from singleshot.analysis.loss.result import LossDistribution

HARDEST = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)  # the fractions of the anchors in the table
_FIFTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)


def loss_section(found: LossDistribution) -> Section:
    """The share of the loss that the hardest anchors carry."""
    rows: list[list[Cell]] = [
        [kind, len(histogram), gamma, *(100 * histogram.share(row, part) for part in HARDEST)]
        for kind, histogram in (("positive", found.positives), ("negative", found.negatives))
        for row, gamma in enumerate(found.gammas)
    ]
    shares = [Column(f"{100 * part:g}%", ".1f") for part in HARDEST]
    return Section(
        "Where the loss lies",
        f"Share of the loss (%) that the hardest anchors carry; {found.link} outputs",
        (Table(["anchors", "number", Column("gamma", "g"), *shares], rows), loss_figure(found)),
    )


def loss_figure(found: LossDistribution) -> Figure:
    """The cumulative loss of positives and negatives: Figure 4 of the focal loss paper."""
    panels = []
    for kind, histogram in (("positive anchors", found.positives), ("negative anchors", found.negatives)):
        curves = [histogram.curve(row) for row in range(len(found.gammas))]
        panels.append(
            Panel(
                [Line(x.tolist(), y.tolist(), f"γ = {g:g}") for g, (x, y) in zip(found.gammas, curves, strict=True)],
                f"{len(histogram):,} {kind}",
                Axis("fraction of the anchors, easiest first", 0, 1.005, ticks=_FIFTHS),
                Axis("cumulative normalised loss", 0, 1.005),
                legend="upper left",
            )
        )
    return Figure(
        panels,
        alt="The cumulative loss over the anchors from the easiest to the hardest, a curve for each gamma; positive "
        "anchors on the left, negative ones on the right.",
        share_y=True,
    )
