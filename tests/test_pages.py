"""What the project's pages promise a reader: links that lead somewhere, decisions in one form, all of them listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECORDS = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md")


def links(text: str) -> list[str]:
    """The targets of a page's links into the project, code and addresses left out."""
    prose = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchor(heading: str) -> str:
    """What a link to a heading ends in."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def test_reads_links() -> None:
    text = "[a](b.md) [c](https://d) `[e](f)`\n```python\nx = y[0](g)\n```\n![h](i.png) [j](#k-l)"
    assert links(text) == ["b.md", "i.png", "#k-l"]
    assert anchor("A `part`, and [more](x.md)") == "a-part-and-more"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        name, _, part = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if part and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in {anchor(heading) for heading in headings}, f"{page.name}: {link}"


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_decision_is_short_and_has_the_three_parts(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.split()) <= 350, "half a page at most"


def test_the_index_lists_every_decision() -> None:
    listed = links((RECORDS[0].parent / "README.md").read_text(encoding="utf-8"))
    assert sorted(name for name in listed if not name.startswith("..")) == [record.name for record in RECORDS]
