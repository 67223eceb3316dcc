"""An analysis of errors as tables and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from singleshot.analysis.figure import GREY, Axis, Bars, Figure, Panel
from singleshot.analysis.section import Block, Cell, Column, Section, Table

if TYPE_CHECKING:
    from singleshot.analysis.errors.result import ErrorAnalysis, Tally

_CONFUSIONS = 5  # how many are named
_COLOURS = {"found": 2, "misplaced": 1, "confused": 4, "missed": GREY}  # of the objects, by outcome


def errors_section(found: ErrorAnalysis) -> Section:
    """What each kind of error costs, then the tallies."""
    gains = [(kind, 100 * gain) for kind, gain in sorted(found.gains.items(), key=lambda one: -one[1])]
    blocks: list[Block] = [
        Table(["errors", Column("points", ".1f")], gains),
        errors_figure(found),
        f"At scores of {found.min_score:.3f} or more: precision {found.precision:.3f}, recall {found.recall:.3f}",
        _tallies("class", [*found.classes, found.total], total=True),
        _tallies("size", found.sizes),
    ]
    if found.confusions:
        most = (f"{a} for {b} ({count})" for a, b, count in found.confusions[:_CONFUSIONS])
        blocks.append(f"Most often confused: {', '.join(most)}")
    lead = (
        f"AP50 {100 * found.AP50:.1f} ({found.images} images, {found.total.objects:,} objects). "
        "If one kind of error were fixed, AP50 would rise by"
    )
    return Section("What keeps AP down", lead, tuple(blocks))


def errors_figure(found: ErrorAnalysis) -> Figure:
    """What each kind of error costs, and how many objects of each size were found."""
    gains = sorted(found.gains.items(), key=lambda one: one[1])
    costs = Bars([kind for kind, _ in gains], [100 * gain for _, gain in gains], form=".1f", colour=0)
    sizes = [one.name.replace(" px", "") for one in found.sizes]
    fates = [
        Bars(sizes, [getattr(one, fate) / max(1, one.objects) for one in found.sizes], label=fate, colour=colour)
        for fate, colour in _COLOURS.items()
    ]
    return Figure(
        [
            Panel([costs], f"AP50 {100 * found.AP50:.1f}: gain without the error", Axis("points"), lying=True),
            Panel(
                fates,
                f"objects, at scores of {found.min_score:.2f} or more",
                Axis("size (root of the area) in pixels"),
                Axis(low=0, high=1, percent=True),
                legend="outside",
            ),
        ],
        alt="On the left the points of AP50 that each kind of error costs, on the right how many objects of each size "
        "are found, misplaced, confused or missed.",
    )


def _tallies(title: str, tallies: Sequence[Tally], *, total: bool = False) -> Table:
    first, *others = tallies[0].detections
    heads: list[Column | str] = [
        title,
        "objects",
        "found",
        "confused",
        "misplaced",
        "missed",
        Column(first, group="detections"),
        *others,
    ]
    rows: list[list[Cell]] = [
        [one.name, one.objects, one.found, one.confused, one.misplaced, one.missed, *one.detections.values()]
        for one in tallies
    ]
    return Table(heads, rows, total=total)
