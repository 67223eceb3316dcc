"""YAML as plain data: what is taken, and what is refused at once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from singleshot.cli import main
from singleshot.errors import UserError
from singleshot.yaml_text import MOST_BYTES, MOST_LEVELS, MOST_VALUES, load_yaml, read_yaml, to_yaml_text

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        (
            "a: 1e-3\nb: [1, -2.5, 0x10, true, no, ~, ~, 'x']",
            {"a": 1e-3, "b": [1, -2.5, 16, True, False, None, None, "x"]},
        ),
        ("1: x\nyes: y", {"1": "x", "yes": "y"}),
        ("a: 2001-12-14\nb: 0b\nc: =", {"a": "2001-12-14", "b": "0b", "c": "="}),
        ("a: !!str 5\nb: !!float 5\nc: !!seq []", {"a": "5", "b": 5.0, "c": []}),
        (
            "a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}",
            {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 2}, "c": {"p": 1, "q": 3}},
        ),
        ("a: {<<: [{p: 1}, {p: 2, q: 3}]}", {"a": {"p": 1, "q": 3}}),
        ('"\\udcff"', "\udcff"),  # a byte of a file's name that is no text
    ],
)
def test_plain_data(text: str, value: Any) -> None:
    found = read_yaml(text, "x")
    assert found == value
    assert found is None or read_yaml(to_yaml_text(found), "x") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, f"line 5: more than {MOST_VALUES:,} values, repeated ones counted"),
        ("a: &a [*a]", r"line 1: \*a stands within itself"),
        ("- " * 3000, f"nested more than {MOST_LEVELS} levels deep"),
        (
            "\n".join(f"a{k}: &a{k} [*a{k - 1}]" if k else "a0: &a0 []" for k in range(99)),
            "line 30: nested more than 30",
        ),
        ("a: *b", "line 1: nothing before has the name &b"),
        ("a: 1\n? [x]\n: 2", "line 2: the key of a mapping must be text"),
        ("a: 1\n\na: 2", "line 3: .*the key 'a' is there twice"),
        ("a: !!set {b}", "!!set is not known here"),
        ("a: !!int [1]", "!!int is not known here"),
        ("a: !!timestamp 2001-12-14", "!!timestamp is not known here"),
        ("a: !!python/name:os.system x", "python/name:os.system is not known here"),
        ("a: !!int ''", "expected a whole number, got ''"),
        ("a: !!bool maybe", "expected true or false, got 'maybe'"),
        ("a: 0x_", "expected a whole number, got '0x_'"),
        (f"a: {'1' * 5000}", "a number of 5,000 characters; expected at most 100"),
        ("a: .nan", "expected a finite number, got .nan"),
        ("a: -1e999", "expected a finite number, got -1e999"),
        ("a: 1e-400", "1e-400 is too near to 0"),
        ("a: {<<: [1]}", "expected a mapping, or a list of mappings, after `<<:`"),
        ('a: "\\0"', r"'\\x00' holds a NUL character"),
        ('a: "\\ud800"', r"'\\ud800' holds half of a character"),
        ('a: "\\U00110000"', "an escape that stands for no letter"),
        ('a: "\\UFFFFFFFF"', "an escape that stands for no letter"),
        ("a: 1\nb: \x1b", r"line 2: this is not valid YAML: the character '\\x1b' is not allowed"),
        ("a: 1\n---\nb: 1", "line 2: another document begins here"),
        ("x" * (MOST_BYTES + 1), "longer than 500,000 characters"),
    ],
)
def test_what_is_refused_at_once(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=message):
        read_yaml(text, "mine.yaml")
    assert time.process_time() - start < 1


def test_only_files_of_a_sensible_size(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"a" * (MOST_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name, message in (
        ("large.yaml", "more than 500,000 bytes"),
        ("pipe.yaml", "not a file"),
        (".", "not a file"),
        ("loop.yaml", "cannot be read"),
        ("a\0b.yaml", "holds a NUL character"),
        ("\ud800.yaml", "holds half of a character"),
    ):
        with pytest.raises(UserError, match=message):
            load_yaml(tmp_path / name)


@pytest.mark.parametrize("given_as", ["recipe", "tta"])
def test_hostile_files(given_as: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ended in a traceback or a hang before: now one message that names the file and the place, at once."""
    files = sorted((shared / "hostile").glob(f"{given_as}-*"))
    assert files
    for file in files:
        copy = tmp_path / f"{file.name}.yaml"
        copy.write_bytes(file.read_bytes())
        verb = (
            ["train", "no_data", "--recipe"] if given_as == "recipe" else ["evaluate", "no_model", "no_data", "--tta"]
        )
        start = time.process_time()
        assert main([*verb, str(copy)]) == 2, file.name
        said = capsys.readouterr().err
        assert said.startswith(f"singleshot: {copy}"), said
        assert len(said) < len(str(copy)) + 120
        assert time.process_time() - start < (5 if file is files[0] else 1), file.name  # the first one imports torch
