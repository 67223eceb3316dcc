"""Sections and their tables, and the contract that every analysis of the table keeps."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from singleshot import analysis
from singleshot.analysis import ANALYSES, Column, Figure, Image, Section, Table, find_analysis, to_text
from singleshot.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n..."


def test_table_of_text() -> None:
    table = Table(
        ["name", Column("AP", ".1f"), Column("n", group="counts"), Column("code", align="right")],
        [["ssd", 57.25, 1234, "a"], ["b", None, 1, "bcd"], ["c", float("nan"), 20, ""]],
        title="Three rows",
    )
    text = to_text(Section("Title", "Lead.", (table, "A paragraph."), next_step="Go on."))
    assert text.splitlines() == [
        "Lead.",
        "",
        "Three rows",
        "",
        "name    AP  |      n  code",
        "ssd   57.2  |  1,234     a",
        "b        -  |      1   bcd",
        "c        -  |     20",
        "",
        "A paragraph.",
        "",
        "Next: Go on.",
    ]


def test_what_text_leaves_out() -> None:
    assert to_text(Section("Title", "", (Figure([], alt=""), Image(PNG, alt="", name="b"), Table(["a"], [])))) == "a"


def test_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        Table(["a", "b"], [[1]])


def test_parts_by_kind_and_their_names() -> None:
    figure, image, table = Figure([], alt=""), Image(PNG, alt="", name="sheet"), Table(["a"], [])
    section = Section("Title", "Lead", (figure, "text", image, table))
    assert (section.figures, section.images, section.tables) == ((figure,), (image,), (table,))
    with pytest.raises(ValueError, match="have the same name"):
        Section("Title", "Lead", (figure, Image(PNG, alt="")))


def test_images(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff...")
    assert Image(tmp_path / "a.jpg", alt="").read() == (b"\xff\xd8\xff...", "jpeg")
    assert Image(PNG, alt="").read() == (PNG, "png")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="a.txt: this is not a PNG or JPEG file"):
        Image(tmp_path / "a.txt", alt="").read()


@pytest.mark.parametrize("name", ANALYSES)
def test_each_analysis_describes_itself(name: str) -> None:
    found = find_analysis(name)
    assert found.takes in ("detector", "detections", "runs")
    assert found.line
    assert not found.line.endswith(".")
    assert found.description.endswith(".")
    assert found.notes.endswith(".")
    keywords = [flag.keyword for flag in found.flags]
    assert len(set(keywords)) == len(keywords)
    assert all(flag.name.startswith("--") and flag.help for flag in found.flags)


def test_unknown_analysis() -> None:
    with pytest.raises(UserError, match="unknown analysis 'speed'; choose one of errors, run, loss, iou"):
        find_analysis("speed")


def test_public_names() -> None:
    for name in analysis._WHERE:
        value = getattr(analysis, name)
        assert value.__doc__
        assert value.__module__ == f"singleshot.analysis.{analysis._WHERE[name]}"
    assert set(analysis.__all__) == set(dir(analysis))
    with pytest.raises(AttributeError, match="has no attribute 'toy'"):
        analysis.toy  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(analysis.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        alias.asname: (node.module or "").removeprefix("singleshot.analysis.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == analysis._WHERE


def test_descriptions_import_nothing_heavy() -> None:
    code = (
        "import sys; from singleshot.analysis import ANALYSES, find_analysis; [find_analysis(n) for n in ANALYSES]; "
        "print(*(m for m in ('torch', 'numpy', 'matplotlib', 'cv2') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
