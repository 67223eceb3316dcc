"""What is drawn, asked from the canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from PIL import Image as Picture

from singleshot.analysis import Figure, Image, Section, write_pictures
from singleshot.analysis.figure import GREY, Axis, Bars, Line, Panel, Points, Rule
from singleshot.analysis.render.pictures import draw, to_picture

LINE = Line([0, 1], [2.0, 3.0], "a $x$ line")


def drawn(panel: Panel, **choices: bool) -> Any:
    """The axes of matplotlib's."""
    return draw(Figure([panel], alt=""), **choices).axes[0]


def test_lines_and_axes() -> None:
    axes = drawn(
        Panel(
            [LINE, Line([1, 10], [5, 6], colour=GREY), Rule(2.5), Rule(3.0, across="x")],
            "cost in $",
            Axis("steps", low=1, log=True),
            Axis("share", 0, 8, ticks=(0, 4, 8)),
        )
    )
    first, second, across, along = axes.lines
    assert first.get_xydata().tolist() == [[0, 2], [1, 3]]
    assert first.get_label() == r"a \$x\$ line"  # no formula
    assert axes.get_title() == r"cost in \$"
    assert first.get_color() != second.get_color() == "0.75"
    assert (across.get_ydata()[0], along.get_xdata()[0]) == (2.5, 3.0)
    assert (axes.get_xscale(), axes.get_xlim()[0]) == ("log", 1)
    assert (axes.get_ylim(), [one.get_text() for one in axes.get_yticklabels()]) == ((0, 8), ["0", "4", "8"])
    assert [one.get_text() for one in axes.get_legend().get_texts()] == [r"a \$x\$ line"]


def test_no_legend() -> None:
    assert drawn(Panel([Line([0], [1])])).get_legend() is None
    assert drawn(Panel([LINE], legend="none")).get_legend() is None
    assert drawn(Panel([Line([], [], "empty")])).get_legend() is None
    outside = draw(Figure([Panel([LINE], legend="outside")], alt=""))
    assert outside.axes[0].get_legend() is None
    assert len(outside.legends) == 1


@pytest.mark.parametrize("lying", [False, True])
def test_bars(lying: bool) -> None:
    names = ["a", "b"]
    first, second = Bars(names, [1, 2], "x", form=".1f"), Bars(names, [3, float("nan")], "y")

    def boxes(way: str) -> list[list[float]]:
        axes = drawn(Panel([first, second], bars=way, lying=lying))  # type: ignore[arg-type]
        assert [one.get_text() for one in (axes.get_yticklabels() if lying else axes.get_xticklabels())] == names
        assert [one.get_text() for one in axes.texts] == ["1.0", "2.0"]
        parts = [(one.get_x(), one.get_width(), one.get_y(), one.get_height()) for one in axes.patches]
        return [[*part[:2]] if lying else [*part[2:]] for part in parts]

    assert boxes("stacked")[:3] == [[0, 1], [0, 2], [1, 3]]  # where each begins, and its length
    assert boxes("beside")[:3] == [[0, 1], [0, 2], [0, 3]]


def test_points_one_by_one_and_as_a_density() -> None:
    random = np.random.default_rng(0)
    few = Panel([Points([0.1, 0.9], [0.2, 0.3])])
    assert isinstance(drawn(few).collections[0], PathCollection)
    many = Panel([Points(random.random(2000).tolist(), random.random(2000).tolist(), "boxes")], x=Axis(low=0, high=1))
    canvas = draw(Figure([many, few], alt=""))
    meshes = [one.collections[0] for one in canvas.axes[:2]]
    assert all(isinstance(one, QuadMesh) for one in meshes)
    assert meshes[0].norm is meshes[1].norm  # one scale for both
    assert [int(one.get_array().sum()) for one in meshes] == [2000, 2]
    assert canvas.axes[2].get_ylabel() == "boxes"


def test_panels_beside_and_below_each_other() -> None:
    figure = Figure([Panel([LINE], y=Axis("left")), Panel([LINE], y=Axis("left"))], alt="", share_y=True)
    beside, below = draw(figure), draw(figure, stacked=True)
    assert [one.get_ylabel() for one in beside.axes] == ["left", ""]
    assert [one.get_ylabel() for one in below.axes] == ["left", "left"]
    assert beside.get_figwidth() > beside.get_figheight()
    assert below.get_figwidth() < below.get_figheight()


def test_dark() -> None:
    light, dark = (drawn(Panel([LINE]), dark=dark) for dark in (False, True))
    assert sum(light.get_facecolor()[:3]) > 2.9
    assert sum(dark.get_facecolor()[:3]) < 0.5
    assert light.lines[0].get_color() != dark.lines[0].get_color()


def test_files(tmp_path: Path) -> None:
    figure = Figure([Panel([LINE])], alt="")
    content = to_picture(figure, "png")
    second = Figure([Panel([LINE])], alt="", name="second")
    sheet = Image(content, alt="", name="sheet")
    written = write_pictures(Section("Title", "", (figure, second, sheet)), tmp_path / "new", "toy")
    assert [path.name for path in written] == ["toy.png", "toy_second.png", "toy_sheet.png"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in written}
    assert (tmp_path / "new" / "toy_sheet.png").read_bytes() == content
    with Picture.open(written[0]) as picture:
        assert picture.size == (800, 680)


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_file_again(kind: str) -> None:
    figure = Figure([Panel([LINE])], alt="")
    assert to_picture(figure, kind) == to_picture(figure, kind)


def test_letters_of_other_languages_are_left_to_the_page(recwarn: pytest.WarningsRecorder) -> None:
    figure = Figure([Panel([Bars(["猫", "cat"], [1, 2], "beasts")])], alt="")
    assert "猫" in to_picture(figure, "svg", letters=True).decode()
    assert not recwarn.list


def test_room_for_the_legend_above_bars() -> None:
    alone, explained = (drawn(Panel([Bars(["a"], [4], label)])) for label in ("", "x"))
    assert alone.get_ylim()[1] < 4.5 < explained.get_ylim()[1]


def test_any_name_is_drawn(tmp_path: Path) -> None:
    """Control characters are shown escaped; a name without end is cut, and leaves room for the bars."""
    names = ["nul\x00", "half\ud800", "two\nlines", "$x$", "L" * 10_000]
    axes = drawn(Panel([Bars(names, [1.0] * 5, "bars\x1b")], lying=True))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == ["nul\\x00", "half\\ud800"]
    assert len(labels[4]) < 200
    (path,) = write_pictures(
        Section("", "", (Figure([Panel([Bars(names, [1.0] * 5)], lying=True)], ""),)), tmp_path, "a"
    )
    assert Picture.open(path).size[0] > 100
