"""Pages."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from singleshot.analysis import Column, Figure, Image, Section, Table, to_html
from singleshot.analysis.figure import Line, Panel
from singleshot.errors import UserError

TEXT = "a <b> & \"c\" 'd' </script>"
_VOID = {"meta", "img", "source"}


class Reader(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def png() -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", (3, 2), "red").save(file, "PNG")
    return file.getvalue()


def section(title: str = "Part") -> Section:
    line = Line([0, 1, 2], [0.5, float("nan"), 1.0], TEXT)
    return Section(
        title,
        TEXT,
        (
            Table(
                [TEXT, Column("AP", ".1f", group=TEXT), Column("n")],
                [[TEXT, 57.26, 1], ["all", None, 2000]],
                title=TEXT,
                total=True,
            ),
            Figure([Panel([line], TEXT), Panel([line])], alt=TEXT, caption=TEXT),
            Figure([Panel([line])], alt="alone", name="second"),
            Image(png(), alt=TEXT, caption=TEXT, name="sheet"),
            TEXT,
        ),
        next_step=TEXT,
    )


def test_what_a_page_holds() -> None:
    page = Reader(to_html([section()], about=TEXT))
    # About, lead, paragraph, next step, two captions, and of the table the title, a group, a column and a cell.
    assert page.text.count(TEXT) == 10
    assert page.text.count("Part") == 2  # the window's title and the heading
    assert [one["alt"] for one in page.all("img")] == [TEXT, "alone", TEXT]
    assert "57.3" in page.text
    assert "2,000" in page.text
    assert page.all("tr")[-1] == {"class": "total"}
    assert page.all("th")[0] == {"scope": "colgroup", "class": "group", "colspan": "2"}
    assert {"scope": "col", "class": "right divider"} in page.all("th")
    assert not page.all("nav")


def test_pictures_for_dark_and_narrow_pages() -> None:
    page = Reader(to_html([section()]))
    two_panels, alone = page.all("source")[:3], page.all("source")[3:]
    dark, narrow = "(prefers-color-scheme: dark)", "(max-width: 44rem)"
    assert [one["media"] for one in two_panels] == [f"{dark} and {narrow}", narrow, dark]
    assert [one["media"] for one in alone] == [dark]
    sources = [one["srcset"] for one in page.all("source")] + [one["src"] for one in page.all("img")]
    assert len(set(sources)) == len(sources) == 7
    for source in sources:
        kind, content = re.fullmatch(r"data:image/(\S+);base64,(\S+)", source or "").groups()  # type: ignore[union-attr]
        assert kind in ("svg+xml", "png")
        assert base64.b64decode(content).startswith(b"<?xml" if kind == "svg+xml" else b"\x89PNG")


def test_a_page_needs_nothing_else() -> None:
    text = to_html([section()])
    page = Reader(text)
    assert not page.all("script")
    assert not page.all("link")
    assert "default-src 'none'" in (page.all("meta")[2]["content"] or "")
    outside = re.sub(r"data:image/[^\"]+", "", text)
    assert "http://" not in outside
    assert "https://" not in outside


def test_the_same_page_again() -> None:
    assert to_html([section()]) == to_html([section()])


def test_several_sections() -> None:
    page = Reader(to_html([section("One"), section("Two & more")], title="Report"))
    assert [one["href"] for one in page.all("a")] == ["#part-1", "#part-2"]
    assert [one["id"] for one in page.all("section")] == ["part-1", "part-2"]
    assert len(page.all("h1")) == 1
    assert len(page.all("h2")) == 2
    assert page.text.count("Two & more") == 2
    assert page.text.count("Report") == 2


def test_an_image_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match="a.png: this is not a PNG or JPEG file"):
        to_html([Section("Title", "", (Image(tmp_path / "a.png", alt=""),))])


def test_no_control_character_reaches_the_page() -> None:
    page = to_html([Section("nul\x00", "half\ud800 <b>")], about="on\x1b[2J").encode()
    assert b"\x00" not in page
    assert b"\x1b" not in page
    for shown in (rb"nul\x00", rb"half\ud800 &lt;b&gt;", rb"on\x1b[2J"):
        assert shown in page
