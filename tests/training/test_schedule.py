"""The learning rate, worked by hand."""

from __future__ import annotations

import itertools

import pytest

from singleshot.errors import UserError
from singleshot.training.recipe import Optimizer, Schedule
from singleshot.training.schedule import rate_factor, scaled_rate, total_steps


def test_steps_of_the_paper() -> None:
    schedule = Schedule(steps=120_000, milestones=(80_000, 100_000))
    factors = [rate_factor(schedule, step, 120_000) for step in (0, 79_999, 80_000, 99_999, 100_000, 119_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_epochs_stretch_the_milestones() -> None:
    schedule = Schedule(steps=120, milestones=(80, 100), epochs=2)
    total = total_steps(schedule, steps_per_epoch=30, images_per_step=4)
    assert total == 60
    assert [rate_factor(schedule, step, total) for step in (39, 40, 49, 50)] == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(("batch", "steps"), [(16, 63), (4, 250), (64, 16)])
def test_a_length_in_images_is_the_same_for_any_batch(batch: int, steps: int) -> None:
    schedule = Schedule(steps=100, images=1000, milestones=(50,))
    assert total_steps(schedule, steps_per_epoch=30, images_per_step=batch) == steps
    assert rate_factor(schedule, steps // 2 - 1, steps) == 1
    assert rate_factor(schedule, -(-steps // 2), steps) == pytest.approx(0.1)
    assert total_steps(Schedule(images=1000, epochs=2), steps_per_epoch=30, images_per_step=batch) == 60


def test_warmup_then_cosine() -> None:
    schedule = Schedule(epochs=1, kind="cosine", warmup_steps=4, warmup_start=0.2, final_factor=0.1)
    found = [rate_factor(schedule, step, 12) for step in range(13)]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[8] == pytest.approx(0.55)  # half way: (1 + 0.1) / 2
    assert found[12] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(found[4:]))


def test_no_warmup_and_a_run_shorter_than_it() -> None:
    assert rate_factor(Schedule(steps=10, kind="constant"), 0, 10) == 1
    short = Schedule(steps=3, kind="cosine", warmup_steps=10, warmup_start=0.0)
    assert [rate_factor(short, step, 3) for step in range(3)] == pytest.approx([0, 0.1, 0.2])


def test_the_rate_follows_the_batch() -> None:
    optimizer = Optimizer(lr=1e-3, base_batch_size=32)
    assert scaled_rate(optimizer, 32) == pytest.approx(1e-3)
    assert scaled_rate(optimizer, 8) == pytest.approx(2.5e-4)
    assert scaled_rate(Optimizer(lr=1e-3, base_batch_size=0), 8) == 1e-3


def test_a_run_without_a_length() -> None:
    with pytest.raises(UserError, match=r"schedule\.epochs, schedule\.images or schedule\.steps"):
        total_steps(Schedule(), 10, 4)
    with pytest.raises(UserError, match="at least one step"):
        total_steps(Schedule(epochs=0), 10, 4)
