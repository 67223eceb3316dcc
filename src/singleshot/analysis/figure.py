"""Figures as data: panels, their axes, and what is drawn in them. `render.pictures` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

GREY = -1
"""The colour of what matters least."""


@dataclass(frozen=True)
class Axis:
    """One axis of a panel. A limit that is None is found from the data."""

    label: str = ""
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = ()  # none: chosen by the renderer
    percent: bool = False  # the values are fractions and are written as percent
    log: bool = False


@dataclass(frozen=True)
class Line:
    """Points [N], [N] that belong together, with a line through them; it breaks at NaN."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    markers: bool = False
    colour: int | None = None  # the place in the palette, or GREY; None: the next one


@dataclass(frozen=True)
class Points:
    """Single points [N], [N]. Where there are very many, their density is drawn."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = "points"  # what is counted


@dataclass(frozen=True)
class Bars:
    """One bar for each name. Several of them in a panel share the names."""

    names: Sequence[str]
    values: Sequence[float]
    label: str = ""
    form: str = ""  # writes the value at the bar's end, as Python's format specifications
    colour: int | None = None


@dataclass(frozen=True)
class Rule:
    """A dotted line across the panel, to compare with."""

    at: float
    across: Literal["x", "y"] = "y"  # the axis whose value `at` is


@dataclass(frozen=True)
class Panel:
    """One coordinate system."""

    marks: Sequence[Line | Points | Bars | Rule]
    title: str = ""
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    legend: Literal["best", "upper left", "lower right", "outside", "none"] = "best"  # where labels are explained
    square: bool = False
    bars: Literal["stacked", "beside"] = "stacked"  # how several `Bars` share a place
    lying: bool = False  # the bars lie: the names are on the y axis, from the bottom up


@dataclass(frozen=True)
class Figure:
    """Panels beside each other, or below each other where there is no room."""

    panels: Sequence[Panel]
    alt: str  # what it shows, for those who do not see it
    caption: str = ""
    name: str = ""  # tells several figures of a section apart, in file names: "" for the only one or the main one
    share_y: bool = False  # all panels have the y axis of the first
