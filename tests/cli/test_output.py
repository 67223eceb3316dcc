"""Documents and tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from singleshot.cli.output import Result, table, write


def document(value: object) -> object:
    return json.loads(write(Result(value, ""), as_json=True))


def test_text() -> None:
    assert write(Result({}, "as it stands"), as_json=False) == "as it stands"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")])
def test_no_number_is_null(value: float) -> None:
    assert document({"deep": [value, (value,)]}) == {"deep": [None, [None]]}


def test_plain_data() -> None:
    value = {
        "path": Path("a") / "b",
        3: np.int64(4),
        "t": torch.tensor([[1.5]]),
        "a": np.array([True]),
        "n": None,
        "s": "ß",
    }
    assert document(value) == {"path": "a/b", "3": 4, "t": [[1.5]], "a": [True], "n": None, "s": "ß"}
    assert document(1e-9) == 1e-9
    assert document(np.float64(0.1)) == 0.1


def test_what_is_no_data() -> None:
    with pytest.raises(TypeError, match="object is not plain data"):
        document(object())


def test_table() -> None:
    assert table(
        [["ssd", 1234, 0.5, None], ["b", 1, float("nan"), 2]], header=["name", "boxes", "AP", "x"]
    ).splitlines() == [
        "name  boxes     AP  x",
        "ssd   1,234  0.500  -",
        "b         1      -  2",
    ]
    assert table([], header=["a", "b"]) == "a  b"


def test_json_has_escapes_for_what_a_terminal_obeys() -> None:
    name = "\x7f\u202e\u009b\U000e0001猫\n\x1b"
    text = write(Result([name], ""), as_json=True)
    assert text.replace("\n", "").isprintable()
    assert "猫" in text
    assert json.loads(text) == [name]


def test_a_table_of_long_and_strange_names() -> None:
    lines = table([["x" * 10_000, 1], ["a\nb\x1b", 2]], header=["class", "n"]).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 110
    assert lines[2].startswith("a\\nb\\x1b ")
