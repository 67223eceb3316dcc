"""Taking the recipe's fields out of a command line."""

from __future__ import annotations

import pytest

from singleshot.cli.parser import take_overrides
from singleshot.errors import UserError

FLAGS = ["--epochs", "--batch-size", "--skip-bad"]


def fields() -> list[str]:
    return ["precision", "ema_decay", "optimizer"]


def test_pairs_of_both_forms() -> None:
    words = [
        "data",
        "--optimizer.lr",
        "0.01",
        "--epochs",
        "3",
        "--arguments.image_size=320",
        "--skip-bad",
        "--a.b.c=x=y",
    ]
    assert take_overrides(words, FLAGS, fields) == (
        ["data", "--epochs", "3", "--skip-bad"],
        {"optimizer.lr": "0.01", "arguments.image_size": "320", "a.b.c": "x=y"},
    )


def test_fields_without_a_dot() -> None:
    assert take_overrides(["--ema-decay", "0.999", "--precision=fp32", "--epohcs", "3"], FLAGS, fields) == (
        ["--epohcs", "3"],
        {"ema_decay": "0.999", "precision": "fp32"},
    )


def test_fields_are_not_asked_for_without_need() -> None:
    def asked() -> list[str]:
        raise AssertionError("asked")

    words = ["data.json", "--batch-size", "8", "--epochs=2", "--optimizer.lr", "-1"]
    assert take_overrides(words, FLAGS, asked) == (words[:4], {"optimizer.lr": "-1"})


@pytest.mark.parametrize("words", [["--optimizer.lr"], ["--optimizer.lr", "--epochs", "3"]])
def test_value_missing(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"--optimizer\.lr needs a value"):
        take_overrides(words, FLAGS, fields)


def test_twice() -> None:
    with pytest.raises(UserError, match="given twice: '1' and '2'"):
        take_overrides(["--a.b", "1", "--a.b=2"], FLAGS, fields)
