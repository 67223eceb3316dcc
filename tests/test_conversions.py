"""What is clear is taken, the rest is refused with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from singleshot.conversions import Unclear, flag, identifier, name, number, whole


class _Odd:
    """Nothing that a file holds."""


@pytest.mark.parametrize(
    ("convert", "value", "expected"),
    [
        (number, 12.5, 12.5),
        (number, 3, 3.0),
        (number, "12.5", 12.5),
        (number, " -3 ", -3.0),
        (number, "+.5e1", 5.0),
        (number, "1.", 1.0),
        (whole, 3, 3),
        (whole, 3.0, 3),
        (whole, "-3", -3),
        (whole, "3.0", 3),
        (whole, "9007199254740993", 2**53 + 1),  # not through a float
        (whole, 2**63 - 1, 2**63 - 1),
        (identifier, 7, 7),
        (identifier, 7.0, 7),
        (identifier, "7", "7"),
        (identifier, "käfer 猫", "käfer 猫"),
        (flag, 0, False),
        (flag, 1, True),
        (flag, 1.0, True),
        (flag, False, False),
        (flag, "0", False),
        (flag, "1.0", True),
        (flag, " FALSE", False),
        (flag, "yes", True),
        (name, "a b/ü.jpg", "a b/ü.jpg"),
        (name, "\u200cزه", "\u200cزه"),  # a sign without width that some scripts need
    ],
)
def test_what_is_clear_is_taken(convert: Callable[[Any], Any], value: object, expected: object) -> None:
    found = convert(value)
    assert (found, type(found)) == (expected, type(expected))


_NUMBERS = ["", " ", "x", "12,5", "1_000", "0x10", "nan", "inf", "٣", True, None, [1], {}, math.nan, math.inf, "1e400"]
_NUMBERS += ["--1", "1e", 10**5_000, -(10**400), _Odd(), "1" * 5_000]


@pytest.mark.parametrize(
    ("convert", "values"),
    [
        (number, _NUMBERS),
        (whole, [*_NUMBERS, 3.5, "3.5", 2**63, "9223372036854775808", 1e19, "1e30"]),
        (identifier, [None, True, 3.5, math.nan, [], {}, 2**63, 10**5_000, "", "a\0b", "a\nb", "\ud800", _Odd()]),
        (flag, [2, -1, 0.5, math.nan, None, "", "2", "maybe", "5\u00a0", [], [0], {}, 10**5_000, _Odd()]),
        (name, [None, 3, "", "a\0", "\x1b[2J", "a\nb", "\u2028", "caf\udce9", "x" * 10_000_000 + "\n", b"a"]),
    ],
)
def test_what_is_not_clear_is_refused(convert: Callable[[Any], Any], values: list[object]) -> None:
    for value in values:
        with pytest.raises(Unclear, match=r"^is .*expected") as caught:
            convert(value)
        assert len(str(caught.value)) < 200
        assert str(caught.value).isprintable()


def test_a_value_deep_inside_of_others_is_refused_too() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Unclear, match="expected a number"):
        number(value)


def test_numbers_that_are_looked_at_later_may_be_infinite() -> None:
    for value, expected in ((math.inf, math.inf), ("-Inf", -math.inf), (10**400, math.inf), ("1e400", math.inf)):
        assert number(value, finite=False) == expected
    assert math.isnan(number("nan", finite=False))
    with pytest.raises(Unclear):
        number("nano", finite=False)
