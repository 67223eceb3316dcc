"""The figures of a section as files: PNG, PDF or SVG, drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from singleshot.analysis.figure import GREY, Axis, Bars, Figure, Line, Panel, Points, Rule
from singleshot.analysis.section import Section
from singleshot.errors import UserError, cut, readable_lines
from singleshot.files import write_atomically
from singleshot.paths import to_path


@dataclass(frozen=True)
class _Theme:
    """The colours of a drawing. They are Okabe and Ito's, safe for colour-blind people; lines also differ in dashes."""

    page: str
    ink: str
    colours: tuple[str, ...]
    grey: str
    tones: tuple[float, float]  # of the density: the range of `Blues`, from few points to many; one must be visible


_LIGHT = _Theme(
    "#ffffff",
    "#000000",
    ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"),
    "0.75",
    (0.2, 1),
)
_DARK = _Theme(
    "#16181b",
    "#e4e6e9",
    ("#56B4E9", "#E69F00", "#2BC79B", "#F07C32", "#DE93BC", "#8AA8FF", "#f0f0f0"),
    "0.4",
    (0.9, 0.1),
)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = "os^Dv"
_WIDE, _SQUARE, _HIGH = 4.0, 3.2, 3.4  # inches of a panel
_NARROW = 4.4  # inches of panels one below the other, with the colour bar of a density
_FEW = 1500  # up to this number, points are drawn one by one
_CELLS = 40  # of the density, along each side
_SMALL = 8  # font size in points
_LONGEST = 60  # letters of a name beside a bar: longer ones would leave no room for the figure


def write_pictures(section: Section, folder: Path, name: str) -> list[Path]:
    """Write every figure (PNG) and image of a section into a folder, as NAME.png or NAME_ITS_NAME.png."""
    written = []
    for figure in section.figures:
        written.append(write_figure(figure, folder / f"{_file_name(name, figure.name)}.png"))
    for image in section.images:
        content, kind = image.read()
        path = folder / f"{_file_name(name, image.name)}.{'jpg' if kind == 'jpeg' else kind}"
        write_atomically(path, content)
        written.append(path)
    return written


def write_figure(figure: Figure, path: str | Path) -> Path:
    """Draw a figure into a file.

    Raises:
        UserError: the file's name does not end in .png, .pdf or .svg.
    """
    path = to_path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "pdf", "svg"):
        raise UserError(f"{path}: a figure can be written as .png, .pdf or .svg; give the file one of these endings")
    write_atomically(path, to_picture(figure, kind))
    return path


def to_picture(figure: Figure, kind: str, *, stacked: bool = False, dark: bool = False, letters: bool = False) -> bytes:
    """The content of a picture file ("png", "pdf", "svg").

    `stacked`: the panels stand one below the other, for narrow pages. `dark`: colours for dark pages. `letters`: text
    of an SVG stays text, shown in the reader's fonts, which cover more languages than the font that is used here.
    """
    content = io.BytesIO()
    # Nothing in the file depends on random numbers or the time of day.
    with matplotlib.rc_context({"svg.hashsalt": "singleshot", "svg.fonttype": "none" if letters else "path"}):
        date = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
        canvas = draw(figure, stacked=stacked, dark=dark)
        with warnings.catch_warnings():
            if letters:
                warnings.filterwarnings("ignore", "Glyph .* missing")
            canvas.savefig(content, format=kind, dpi=200, metadata=date)
    return content.getvalue()


def draw(figure: Figure, *, stacked: bool = False, dark: bool = False) -> Canvas:
    """The figure on a canvas of matplotlib's, which the caller may change or save."""
    theme = _DARK if dark else _LIGHT
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    page = ("figure.facecolor", "axes.facecolor")
    colours: Any = dict.fromkeys(ink, theme.ink) | dict.fromkeys(page, theme.page)
    with matplotlib.rc_context(colours):
        return _draw(figure, theme, stacked=stacked)


def _draw(figure: Figure, theme: _Theme, *, stacked: bool) -> Canvas:
    number = len(figure.panels)
    widths = [_SQUARE if panel.square else _WIDE for panel in figure.panels]
    size = (_NARROW, _HIGH * number) if stacked else (sum(widths), _HIGH)
    # Padding in inches, so that the last number of an axis does not touch the first of the next one.
    canvas = Canvas(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08))
    rows, columns = (number, 1) if stacked else (1, number)
    places = canvas.subplots(rows, columns, squeeze=False, sharey=figure.share_y and not stacked).ravel()
    norm = _norm(figure)
    density: dict[str, list[Any]] = {}  # what is counted -> the panels that show its density
    mesh: Any = None
    for place, panel in zip(places, figure.panels, strict=True):
        shown = _draw_points(place, panel, norm, theme)
        if shown is not None:
            mesh, label = shown
            density.setdefault(label, []).append(place)
        _draw_bars(place, panel, theme)
        _draw_lines(place, panel, theme)
        _finish(place, panel, canvas)
        if figure.share_y and not stacked and place is not places[0]:
            place.set_ylabel("")
    for label, panels in density.items():
        canvas.colorbar(mesh, ax=panels, label=label, shrink=0.75, pad=0.01)
    return canvas


def _norm(figure: Figure) -> LogNorm | None:
    """The colour scale of the densities, the same in all panels; None if every panel has few points."""
    clouds = [mark for panel in figure.panels for mark in panel.marks if isinstance(mark, Points)]
    if max((len(cloud.x) for cloud in clouds), default=0) <= _FEW:
        return None
    highest = 0.0
    for panel in figure.panels:
        for cloud in panel.marks:
            if isinstance(cloud, Points):
                highest = max(highest, float(_density(cloud, panel)[0].max()))
    return LogNorm(1, max(2.0, highest))


def _density(cloud: Points, panel: Panel) -> tuple[Any, Any, Any]:
    """The number of points in each cell, and the borders of the cells."""
    x, y = np.asarray(cloud.x, np.float64), np.asarray(cloud.y, np.float64)
    return np.histogram2d(x, y, bins=_CELLS, range=(_extent(x, panel.x), _extent(y, panel.y)))


def _extent(values: Any, axis: Axis) -> tuple[float, float]:
    low = axis.low if axis.low is not None else float(values.min(initial=0.0))
    high = axis.high if axis.high is not None else float(values.max(initial=low + 1.0))
    return low, high


def _draw_points(place: Any, panel: Panel, norm: LogNorm | None, theme: _Theme) -> tuple[Any, str] | None:
    """Draw the points one by one (returns None), or as a density (returns its mesh and what is counted)."""
    shown = None
    for cloud in panel.marks:
        if not isinstance(cloud, Points):
            continue
        if norm is None:
            place.scatter(cloud.x, cloud.y, s=6, color=theme.colours[0], alpha=0.4, linewidths=0)
            continue
        grid, x, y = _density(cloud, panel)
        tones = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(*theme.tones, 256)))
        mesh = place.pcolormesh(x, y, np.ma.masked_equal(grid.T, 0), cmap=tones, norm=norm, rasterized=True)
        shown = mesh, cloud.label
    return shown


def _draw_bars(place: Any, panel: Panel, theme: _Theme) -> None:
    groups = [mark for mark in panel.marks if isinstance(mark, Bars)]
    if not groups:
        return
    ticks = np.arange(len(groups[0].names))
    base = np.zeros(len(ticks))
    beside = panel.bars == "beside"
    thick = 0.8 / len(groups) if beside else 0.75
    for k, bars in enumerate(groups):
        values = np.asarray(bars.values, np.float64)
        at = ticks + (k - (len(groups) - 1) / 2) * thick if beside else ticks
        style: Any = {"color": _colour(theme, bars.colour, k), "label": bars.label or None}
        if panel.lying:
            drawn = place.barh(at, values, thick, left=None if beside else base, **style)
        else:
            drawn = place.bar(at, values, thick, bottom=None if beside else base, **style)
        if bars.form:
            texts = [f"{value:{bars.form}}" if np.isfinite(value) else "" for value in values]
            place.bar_label(drawn, texts, padding=3, fontsize=_SMALL)
        base = base + np.nan_to_num(values)
    names = [_plain(cut(name, _LONGEST)) for name in groups[0].names]
    if panel.lying:
        place.set_yticks(ticks, names)
    else:
        place.set_xticks(ticks, names, fontsize=_SMALL)
    if any(bars.form for bars in groups):
        place.margins(**{"x" if panel.lying else "y": 0.12})
    elif any(bars.label for bars in groups) and panel.legend == "best" and not panel.lying:
        place.margins(y=0.25)  # room for the legend


def _draw_lines(place: Any, panel: Panel, theme: _Theme) -> None:
    order = count()
    for mark in panel.marks:
        if isinstance(mark, Rule):
            rule = place.axhline if mark.across == "y" else place.axvline
            rule(mark.at, color="0.45", linewidth=0.8, linestyle=":")
        elif isinstance(mark, Line):
            k = next(order)
            place.plot(
                mark.x,
                mark.y,
                label=_plain(mark.label) or None,
                color=_colour(theme, mark.colour, k),
                linestyle=_DASHES[k % len(_DASHES)],
                linewidth=1.6,
                marker=_MARKERS[k % len(_MARKERS)] if mark.markers else "",
                markersize=3.8,
            )


def _finish(place: Any, panel: Panel, canvas: Canvas) -> None:
    """Titles, axes and the legend."""
    place.set_title(_plain(panel.title), fontsize=10)
    for axis, letter in ((panel.x, "x"), (panel.y, "y")):
        _set_axis(place, axis, letter)
    if panel.square:
        place.set_box_aspect(1)
    place.spines[["top", "right"]].set_visible(False)
    place.grid(color="0.5", alpha=0.22, linewidth=0.6)
    place.set_axisbelow(True)
    labelled = any(mark.label and _has_data(mark) for mark in panel.marks if isinstance(mark, Line | Bars))
    if not labelled or panel.legend == "none":
        return
    if panel.legend == "outside":
        handles, labels = place.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower right", ncols=4, frameon=False, fontsize=_SMALL)
    else:
        place.legend(frameon=False, loc=panel.legend, fontsize=_SMALL)


def _set_axis(place: Any, axis: Axis, letter: str) -> None:
    place.set(**{f"{letter}label": _plain(axis.label)})
    if axis.log:
        place.set(**{f"{letter}scale": "log"})
    if len(axis.ticks):
        place.set(**{f"{letter}ticks": axis.ticks, f"{letter}ticklabels": [f"{tick:g}" for tick in axis.ticks]})
    if axis.percent:
        {"x": place.xaxis, "y": place.yaxis}[letter].set_major_formatter(PercentFormatter(1, decimals=0))
    if axis.low is not None or axis.high is not None:
        place.set(**{f"{letter}lim": (axis.low, axis.high)})


def _has_data(mark: Line | Bars) -> bool:
    return bool(np.isfinite(np.asarray(mark.y if isinstance(mark, Line) else mark.values, np.float64)).any())


def _colour(theme: _Theme, wanted: int | None, own: int) -> str:
    if wanted == GREY:
        return theme.grey
    return theme.colours[(own if wanted is None else wanted) % len(theme.colours)]


def _plain(text: str) -> str:
    """The text as matplotlib draws it letter by letter: no formula, and no control character."""
    return readable_lines(text).replace("$", r"\$")


def _file_name(name: str, own: str) -> str:
    return f"{name}_{own}" if own else name
