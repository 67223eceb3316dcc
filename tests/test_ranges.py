"""Ranges beside the fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from singleshot.cli import main
from singleshot.errors import UserError
from singleshot.ranges import Range, check_ranges, within
from singleshot.training import override
from singleshot.training.recipe import Recipe


@dataclass(frozen=True)
class Inner:
    many: tuple[float, ...] = field(default=(), metadata=within(above=0, most=1))


@dataclass(frozen=True)
class Outer:
    count: int | None = field(default=None, metadata=within(least=1, most=2000))
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "told"),
    [
        (
            Range(least=0, most=10**6),
            (0, 10**6),
            (-1, 10**6 + 1, math.nan, 10**400, "5", None),
            "0 to 1,000,000",
        ),
        (Range(least=0, below=1), (0, 0.9), (-0.1, 1), "0 or more, below 1"),
        (Range(above=0, below=1), (0.1,), (0, 1), "above 0, below 1"),
        (Range(above=0, most=10), (0.1, 10), (0, 10.1), "above 0, at most 10"),
    ],
)
def test_a_range(allowed: Range, inside: tuple[Any, ...], outside: tuple[Any, ...], told: str) -> None:
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)
    assert str(allowed) == told


def test_the_message_names_the_field_and_the_range() -> None:
    check_ranges(Outer(5, Inner((0.5, 1))))
    for wrong, message in (
        (Outer(0), "x.yaml: count is 0; expected 1 to 2,000, or null"),
        (Outer(inner=Inner((1, 2))), r"x.yaml: inner.many\[1\] is 2; expected above 0, at most 1"),
        (Outer(inners=(Inner(), Inner((0,)))), r"x.yaml: inners\[1\].many\[0\] is 0; expected above 0, at most 1"),
    ):
        with pytest.raises(UserError, match=message):
            check_ranges(wrong, where="x.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", "1e18", "batch_size is 1000000000000000000; expected 1 to 100,000"),
        ("data.workers", 100_000, "data.workers is 100000; expected 0 to 1,000, or null"),
        ("optimizer.lr", math.nan, "optimizer.lr: expected a number, got nan"),
        ("optimizer.lr", "-.inf", "expected a finite number, got -.inf"),
        ("optimizer.lr", 10**400, "optimizer.lr: expected a number, got 1000"),
        ("augmentation.jitter", [0.5, 100], r"augmentation.jitter\[1\] is 100.0; expected above 0, at most 10"),
        ("schedule.steps", 0, "schedule.steps is 0; expected 1 to 1,000,000,000, or null"),
    ],
)
def test_numbers_of_a_recipe(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(Recipe(), {key: value})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate m d --batch-size 1000000", "expected a whole number, 1 or more, at most 100,000, got '1000000'"),
        ("evaluate m d --workers 100000", "at most 1,000, got '100000'"),
        (f"evaluate m d --workers {'9' * 5000}", "at most 1,000, got '9999"),
        ("detect m x --batch-size nan", "expected a whole number, 1 or more"),
        ("detect m x --threshold nan", "expected a number from 0 to 1, got 'nan'"),
        ("data split d --val inf", "expected a number above 0, got 'inf'"),
        ("evaluate m d --sweep nms=1e999999,0.5", "expected numbers between the commas"),
        ("evaluate m d --sweep nms=1,1e-999999999,...,0", "expected numbers between the commas"),
    ],
)
def test_numbers_of_flags(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err
