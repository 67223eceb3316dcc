"""Measured rows as a table of Markdown, as lines of a terminal and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growing.measure import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v")


def took(milliseconds: float) -> str:
    """A time in the unit that reads best."""
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.0f} s"
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def line(row: Row) -> str:
    """For a terminal."""
    points = ", ".join(f"{number:,}: {took(time)}" for number, time in row.points)
    note = "" if row.grows_as_it_should else f"  <- more than {row.most:g}"
    return f"{row.family}: {row.name}: {points}; exponent {row.exponent:.2f}, at the end {row.at_the_end:.2f}{note}"


def table(rows: Sequence[Row]) -> str:
    """One line for each row, as Markdown."""
    lines = ["| what grows | work | time | exponent | at the end |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        points = ", ".join(f"{number:,}: {took(time)}" for number, time in row.points)
        end = f"{row.at_the_end:.2f}" + ("" if row.at_the_end <= 1.2 else " (\\*)")
        lines.append(f"| {row.family} | {row.name} | {points} | {row.exponent:.2f} | {end} |")
    return "\n".join(lines)


def reasons(rows: Sequence[Row]) -> str:
    """Why a row that grows faster than its number does so."""
    found = [row for row in rows if row.at_the_end > 1.2]
    return "\n".join(f"- {row.name}: {row.why or 'not explained yet'}." for row in found)


def where(about: dict[str, Any]) -> str:
    """The machine and the code, in a sentence."""
    machine, code = about["machine"], about["code"]
    flags = ", ".join(machine["flags"]) or "no wide instructions"
    rounds = f"median of {about['rounds']} rounds" if about["rounds"] > 1 else "one round"
    return (
        f"Measured on {about['date']} at {code['commit']}, {machine['processor']}, {machine['cores']} cores ({flags}), "
        f"one thread\nwhere not said otherwise, torch {machine['torch']}, {rounds}. "
        "A star marks what grows faster than linear; the reasons are below."
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """One panel for each thing that grows; both axes are logarithmic; grey lines have the exponent 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    families = list(dict.fromkeys(row.family for row in rows))
    columns = 2
    height = -(-len(families) // columns)
    figure, grid = pyplot.subplots(height, columns, figsize=(12, 3.6 * height), dpi=110, layout="constrained")
    places = list(grid.flat) if hasattr(grid, "flat") else [grid]
    for axes, family in zip(places, families, strict=False):
        mine = [row for row in rows if row.family == family]
        for k, row in enumerate(mine):
            x, y = zip(*row.points, strict=True)
            axes.plot(x, y, color=COLOURS[k], marker=MARKERS[k], markersize=5, linewidth=1.5,
                      label=f"{row.name} ({row.exponent:.2f})")  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel=family, ylabel="ms")
        low, high = axes.get_ylim()
        left, right = axes.get_xlim()
        if family != "threads":
            slope = 2 if "side" in family else 1
            for start in (low / 1e6 * 10**k for k in range(0, 16)):
                axes.plot([left, right], [start, start * (right / left) ** slope], color="0.9", linewidth=0.8, zorder=0)
        axes.set(xlim=(left, right), ylim=(low, high))
        numbers = sorted({number for row in mine for number, _ in row.points})
        numbers = [n for n, before in zip(numbers, [0, *numbers], strict=False) if n > 1.3 * before]  # room for text
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.0))
        axes.set_ylim(low, high * (high / low) ** (0.12 * len(mine)))  # room for the names
        axes.set_title(family, fontsize=10, loc="left")
    for axes in places[len(families) :]:
        axes.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
