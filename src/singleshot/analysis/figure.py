"""Figures as data: panels, their axes, and what is drawn in them. `render.pictures` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

GREY = -1
"""The colour for what matters least."""


@dataclass(frozen=True)
class Axis:
    """One axis of a panel. A limit of None is taken from the data."""

    label: str = ""
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = ()  # empty: the renderer chooses
    percent: bool = False  # the values are fractions, shown as percent
    log: bool = False


@dataclass(frozen=True)
class Line:
    """Points [N], [N] joined by a line; the line breaks at NaN."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    markers: bool = False
    colour: int | None = None  # index in the palette, or GREY; None: the next colour


@dataclass(frozen=True)
class Points:
    """Single points [N], [N]. If there are very many, their density is drawn instead."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = "points"  # what is counted


@dataclass(frozen=True)
class Bars:
    """One bar for each name. Several `Bars` in a panel share the names."""

    names: Sequence[str]
    values: Sequence[float]
    label: str = ""
    form: str = ""  # a Python format specification: the value is written at the bar's end
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
    lying: bool = False  # horizontal bars: the names are on the y axis, from the bottom up


@dataclass(frozen=True)
class Figure:
    """Panels side by side, or one below the other where there is no room."""

    panels: Sequence[Panel]
    alt: str  # what it shows, for readers who cannot see it
    caption: str = ""
    name: str = ""  # part of the file name; "" for the only figure of a section, or the main one
    share_y: bool = False  # all panels use the y axis of the first
