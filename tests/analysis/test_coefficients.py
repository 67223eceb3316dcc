"""Pearson's and Spearman's coefficients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from singleshot.analysis.coefficients import average_ranks, correlation, pearson, spearman


def test_worked_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6); ranks (1, 2, 3) and (1, 2.5, 2.5): 1.5 / sqrt(2 * 1.5).
    x, y = np.array([1.0, 2.0, 3.0]), np.array([0.0, 3.0, 3.0])
    assert pearson(x, y) == pytest.approx(3 / math.sqrt(12))
    assert spearman(x, y) == pytest.approx(1.5 / math.sqrt(3))


def test_ranks_of_equals_are_their_mean() -> None:
    assert average_ranks(np.array([5.0, 1.0, 5.0, 0.0, 5.0])).tolist() == [4, 2, 4, 1, 4]


def test_spearman_knows_only_the_order() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert spearman(x, np.exp(3 * x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)


def test_equals_the_slow_form() -> None:
    random = np.random.default_rng(1)
    x, y = random.integers(0, 9, 200).astype(float), random.integers(0, 9, 200).astype(np.float32)
    ranks = [[(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values] for values in (x, y)]
    assert spearman(x, y) == pytest.approx(np.corrcoef(ranks[0], ranks[1])[0, 1])
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0])])
def test_undefined_is_nan(x: list[float], y: list[float]) -> None:
    found = correlation(np.array(x), np.array(y))
    assert found.count == len(x)
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)
