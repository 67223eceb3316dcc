"""What the paper pages quote from the code stands in the code, and the files that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUOTE = re.compile(r"<!-- not run: quoted from (?P<path>\S+) -->\n```py\n(?P<text>.*?)```", re.DOTALL)
QUOTES = [
    (page.name, match["path"], match["text"])
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for match in QUOTE.finditer(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "path", "text"), QUOTES, ids=lambda value: value.partition("\n")[0][:40])
def test_quotes_stand_in_the_code(page: str, path: str, text: str) -> None:
    code = " ".join((ROOT / path).read_text(encoding="utf-8").split())
    assert " ".join(text.split()) in code, f"docs/{page} quotes {path}, which has changed:\n{text}"


def test_links_to_files_lead_somewhere() -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose):
            assert (page.parent / target).exists(), f"docs/{page.name} links to {target}, which does not exist"


def test_there_are_quotes() -> None:
    assert len(QUOTES) > 10
