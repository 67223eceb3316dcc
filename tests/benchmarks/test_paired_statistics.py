"""Paired differences, intervals, verdicts: values worked by hand."""

from __future__ import annotations

import pytest
from pairs.experiment import Claim
from pairs.experiments import EXPERIMENTS
from pairs.statistics import T975, Interval, interval, verdict


def test_an_interval_by_hand() -> None:
    # 1, 2, 3, 4, 5: mean 3, variance 10 / 4 = 2.5, standard error sqrt(2.5 / 5) = 0.7071, t(4) = 2.776: 3 -+ 1.9629
    found = interval([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.error == pytest.approx(0.70711, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((1.03706, 4.96294), abs=1e-4)


def test_two_pairs_and_equal_pairs() -> None:
    found = interval([0, 2])  # mean 1, standard error 1, t(1) = 12.706
    assert (found.low, found.high) == pytest.approx((-11.706, 13.706))
    assert interval([2, 2, 2]) == Interval(2, 0, 2, 2)
    for wrong in ([], [1.0], [0.0] * 30):
        with pytest.raises(ValueError, match="pairs"):
            interval(wrong)


def test_the_table_of_t_is_students() -> None:
    """Integrating the density gives 0.975 up to each value."""
    import math

    for degrees, t in enumerate(T975, 1):
        constant = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
        count = 20_000
        step = t / count
        density = [constant * (1 + (i * step) ** 2 / degrees) ** (-(degrees + 1) / 2) for i in range(count + 1)]
        area = step * (sum(density) - (density[0] + density[-1]) / 2)
        assert 0.5 + area == pytest.approx(0.975, abs=3e-5)


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [
        (0.1, 2.0, "shown", "opposite"),
        (-2.0, -0.1, "opposite", "shown"),
        (-0.1, 2.0, "not shown", "not shown"),
        (0.0, 1.0, "not shown", "not shown"),  # 0 itself is inside
    ],
)
def test_verdicts_on_a_direction(low: float, high: float, higher: str, lower: str) -> None:
    found = Interval((low + high) / 2, 1.0, low, high)
    assert verdict(found, Claim("higher", "", "")) == higher
    assert verdict(found, Claim("lower", "", "")) == lower


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.4, 0.9, "shown"),
        (-0.4, 1.1, "not shown"),
        (0.5, 1.5, "not shown"),
        (1.1, 2, "opposite"),
        (-3, -1.1, "opposite"),
    ],
)
def test_verdicts_on_no_change(low: float, high: float, expected: str) -> None:
    assert verdict(Interval((low + high) / 2, 1.0, low, high), Claim("same", "", "", margin=1.0)) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 2, "helps"), (-2, -0.1, "hurts"), (-0.1, 2, "not shown"), (0, 1, "not shown")]
)
def test_verdicts_without_a_claim(low: float, high: float, expected: str) -> None:
    assert verdict(Interval((low + high) / 2, 1.0, low, high), Claim("none")) == expected


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_every_experiment_is_sound(experiment: object) -> None:
    from pairs.experiment import Experiment, settings_of

    from singleshot.detectors.parts import restore_argument

    assert isinstance(experiment, Experiment)
    assert len(experiment.runs) == len(set(experiment.runs)) == len(experiment.arms) * len(experiment.seeds)
    base = settings_of(experiment.recipe_of(experiment.baseline, 0))
    for name, arm in experiment.arms.items():
        settings = settings_of(experiment.recipe_of(name, 0))
        restore_argument(experiment.recipe_of(name, 0).arguments)  # the parts exist
        differing = {key for key in settings.keys() | base.keys() if settings.get(key) != base.get(key)}
        assert differing <= set(arm.changes)  # nothing else separates the arms
