"""The time left: smooth, and of the steps alone. The clock is one that the test turns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from singleshot.training import loop, pace, progress, train, validation
from singleshot.training.pace import Pace
from singleshot.training.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


class Hand:
    """The hand of a clock."""

    time = 1000.0


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    for module in (pace, progress):
        monkeypatch.setattr(module, "now", lambda: hand.time)
    return hand


def forecasts(hand: Hand, steps: Iterator[float] | list[float]) -> list[float | None]:
    measured = Pace()
    found = []
    for seconds in steps:
        hand.time += seconds
        measured.step()
        found.append(measured.typical)
    return found


def test_the_first_step_takes_long_and_does_not_count(hand: Hand) -> None:
    assert forecasts(hand, [60.0, *[2.0] * 60]) == [None, None, *[2.0] * 59]


def test_a_machine_that_was_busy_for_a_while_changes_little(hand: Hand) -> None:
    steps = [1.0] * 100
    steps[70] = 600.0  # the lid was closed
    found = forecasts(hand, steps)
    assert found[-1] == 1.0
    assert found[75] == 1.0


def test_bursts_of_the_loader_are_averaged(hand: Hand) -> None:
    found = forecasts(hand, [0.1, 0.1, 0.1, 1.7] * 50)  # four workers
    assert found[47:] == pytest.approx([0.5] * 153)


def test_a_machine_that_became_slower_is_believed_in_the_end(hand: Hand) -> None:
    assert forecasts(hand, [1.0] * 160 + [4.0] * 1200)[-1] == 4.0


def test_what_is_done_in_a_pause_is_no_part_of_a_step(hand: Hand) -> None:
    measured = Pace()
    for _ in range(20):
        hand.time += 2.0
        measured.step()
        with measured.pause():
            hand.time += 30.0
    assert measured.typical == measured.recent == 2.0


def test_the_time_left_of_a_run_is_smooth(
    tmp_path: Path,
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hand: Hand,
) -> None:
    """Validations and states between the steps do not change it, and a resumed run measures its own steps."""
    monkeypatch.setattr(progress.Display, "interval", 0.0)
    original_step, original_validate, seconds = loop.step, validation.validate, [3.0]

    def step(*arguments: object) -> object:
        hand.time += seconds[0]
        return original_step(*arguments)  # type: ignore[arg-type]

    def validate(*arguments: object) -> None:
        hand.time += 500.0
        original_validate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "step", step)
    monkeypatch.setattr(validation, "validate", validate)

    def left() -> dict[int, int]:
        found = re.findall(r"^step (\d+)/\d+ .* images/s (\d+):(\d\d) min left$", capsys.readouterr().err, re.MULTILINE)
        return {int(step): 60 * int(minutes) + int(rest) for step, minutes, rest in found}

    run = train(make_recipe(schedule__steps=16, validation__times=4, log__save_every=3), out=tmp_path / "run").run
    assert left() == {step: 3 * (16 - step) for step in range(3, 17)}

    seconds[0] = 5.0
    train(make_recipe(schedule__steps=24, validation__times=4), resume=run)
    assert left() == {step: 5 * (24 - step) for step in range(19, 25)}
