"""docs/robustness.md: each test and kind of fault that it names exists, and each limit is the number in the code."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faults.kinds import KINDS

TESTS = Path(__file__).resolve().parent
TEXT = (TESTS.parent / "docs" / "robustness.md").read_text(encoding="utf-8")
ROWS = [
    (promise, limit, held)
    for promise, limit, held in re.findall(r"^\| (.+?) \| (.*?) ?\| (.+?) \|$", TEXT, re.MULTILINE)
    if promise != "promise"
]
NUMBER = re.compile(r"\d[\d,]*")
LIMIT = re.compile(rf"({NUMBER.pattern})[^(),]*\(`([\w.]+)`\)")


@cache
def names_in(file: str) -> set[str]:
    """The names of the tests of a file."""
    path = TESTS / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def constant(name: str) -> Any:
    """The value of a dotted name of the package (or of Pillow): modules, then attributes or keys."""
    parts = (name if name.startswith("PIL.") else f"singleshot.{name}").split(".")
    value: Any = importlib.import_module(parts[0])
    for place, part in enumerate(parts[1:], 2):
        try:
            value = importlib.import_module(".".join(parts[:place]))
        except ModuleNotFoundError:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def missing(text: str) -> list[str]:
    """The tests and kinds that a text names and that there are not."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    wrong = [f"{file}::{name}" for file, name in named if name not in names_in(file)]
    return wrong + [f"faults:{kind}" for kind in re.findall(r"`faults:([\w-]+)`", text) if kind not in KINDS]


def differing(limit: str) -> list[str]:
    """The numbers of a limit that are not those of the code, or that say no place in the code."""
    told = [(number, name) for number, name in LIMIT.findall(limit) if int(number.replace(",", "")) != constant(name)]
    return [f"{number} ({name})" for number, name in told] + NUMBER.findall(
        re.sub(r"`[^`]*`", "", LIMIT.sub("", limit))
    )


def test_what_is_wrong_is_seen() -> None:
    assert missing("`test_files.py::test_gone` `gone.py::test_x` `faults:gone` `faults:kill`") == [
        "test_files.py::test_gone",
        "gone.py::test_x",
        "faults:gone",
    ]
    assert differing("300 letters (`errors.NAME`), 4,000 letters (`errors.LINE`), 7 days") == ["300 (errors.NAME)", "7"]


def test_what_the_page_names_exists() -> None:
    assert not missing(TEXT)
    assert len(re.findall("::test_|`faults:", TEXT)) > 100


def test_every_kind_of_fault_holds_a_promise() -> None:
    assert not [kind for kind in KINDS if f"`faults:{kind}`" not in TEXT]


@pytest.mark.parametrize(("promise", "limit", "held"), ROWS, ids=[promise[:40] for promise, _, _ in ROWS])
def test_a_promise_is_held_and_its_numbers_are_those_of_the_code(promise: str, limit: str, held: str) -> None:
    rest = re.sub(r"`([\w/]+\.py::test_\w+|faults:[\w-]+)`", "", held)
    assert not rest.strip(", "), f"this is no name of a test: {rest}"
    assert not differing(limit)


def test_every_line_of_a_table_is_a_row() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("|") and not line.startswith(("| promise", "|---"))]
    assert len(lines) == len(ROWS) > 50
