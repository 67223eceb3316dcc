"""Sizes that keep the aspect ratio: by hand, against the plain formula, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleshot.errors import UserError
from singleshot.ops.fit import LongestSide, ShortSide, ShortSideRange

SIDES = st.integers(1, 6000)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),  # 1199.06
        ((300, 1000), (400, 1333)),  # the longest side decides: 300 * 1.333 = 399.9
        ((800, 1333), (800, 1333)),
        ((1, 1), (800, 800)),
        ((1, 5000), (1, 1333)),  # 0.27 pixels are one
        ((6000, 2), (1333, 1)),
    ],
)
def test_800_1333_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert ShortSide(800, 1333)(*size) == expected


def test_halves_are_rounded_up() -> None:
    assert ShortSide(3, 100)(2, 3) == (3, 5)  # 4.5
    assert LongestSide(5)(1, 2) == (3, 5)  # 2.5


def test_longest_side_by_hand() -> None:
    assert [LongestSide(600)(*size) for size in ((300, 400), (1200, 300), (600, 600), (1, 5000))] == [
        (450, 600),
        (600, 150),
        (600, 600),
        (1, 600),
    ]


def test_nominal_sizes() -> None:
    assert ShortSide(800, 1333).nominal == (800, 1333)
    assert LongestSide(512).nominal == (512, 512)


@given(height=SIDES, width=SIDES, short=st.integers(1, 900), more=st.integers(0, 600))
def test_is_the_plain_formula_and_fits(height: int, width: int, short: int, more: int) -> None:
    fit = ShortSide(short, short + more)
    scale = min(fit.short / min(height, width), fit.longest / max(height, width))
    h, w = fit(height, width)
    assert abs(h - max(height * scale, 1)) <= 0.5 + 1e-6
    assert abs(w - max(width * scale, 1)) <= 0.5 + 1e-6
    assert 1 <= min(h, w) <= fit.short
    assert max(h, w) <= fit.longest
    assert min(h, w) == fit.short or max(h, w) == fit.longest
    assert fit(width, height) == (w, h)


@given(height=SIDES, width=SIDES, short=st.integers(1, 900), more=st.integers(0, 600))
def test_a_size_that_was_given_is_left_alone(height: int, width: int, short: int, more: int) -> None:
    for fit in (ShortSide(short, short + more), LongestSide(short)):
        assert fit(*fit(height, width)) == fit(height, width)


@given(height=SIDES, width=SIDES, data=st.data())
def test_a_range_contains_what_its_draws_give_and_nothing_else(height: int, width: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(1, 60))
    choices = ShortSideRange(low, data.draw(st.integers(low, 70)), longest=100)
    sizes = {choices.at(short)(height, width) for short in range(choices.low, choices.high + 1)}
    assert all(choices.contains(*size) for size in sizes)
    assert not choices.contains(height, width) or (height, width) in sizes


def test_a_range_by_hand() -> None:
    choices = ShortSideRange(640, 800, 1333)
    sizes = [(640, 900), (800, 1333), (700, 700), (300, 1333), (639, 900), (801, 900), (700, 1334), (300, 1332)]
    assert [choices.contains(*size) for size in sizes] == [True, True, True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("rule", "values", "message"),
    [
        (ShortSide, (0, 100), "whole number of pixels, 1 or more, got 0"),
        (ShortSide, (80.5, 100), "got 80.5"),
        (ShortSide, (True, 100), "got True"),
        (ShortSide, ("800", 1333), "got '800'"),
        (ShortSide, (1400, 1333), "1400 pixels, but the longest side is limited to 1333"),
        (LongestSide, (-3,), "got -3"),
        (ShortSideRange, (800, 640), r"two short sides, the smaller one first, such as \[640, 800\], got 800, 640"),
        (ShortSideRange, (640, 1400), "but the longest side is limited to 1333"),
        (ShortSideRange, (0, 800), "got 0"),
    ],
)
def test_sizes_that_cannot_be(rule: Any, values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule(*values)
