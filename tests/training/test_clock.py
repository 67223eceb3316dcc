"""Runs that are bounded in time. The clock is one that the test turns: a step and a validation take a fixed time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks

from singleshot.errors import UserError
from singleshot.training import clock, due, loop, pace, progress, saving, to_yaml, train, validation
from singleshot.training.clock import Clock, Verdict
from singleshot.training.recipe import Recipe, Schedule, from_yaml, override
from singleshot.training.schedule import check_length, rate_factor_by_time, total_steps
from singleshot.training.state import SavedState

MakeRecipe = Callable[..., Recipe]
METRICS: dict[str, Any] = {"coco": {"AP": 0.1, "AP50": 0.2}, "voc07": {"mAP": None}, "voc10": {"mAP": None}}


class Machine:
    """A machine that is as fast as the test says, in seconds."""

    time, step, validation, save = 1000.0, 1.0, 3.0, 0.5


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine, step, write = Machine(), loop.step, saving.write

    def now() -> float:
        return machine.time

    def slow_step(*arguments: Any) -> Any:
        machine.time += machine.step
        return step(*arguments)

    def measure(run: object) -> dict[str, Any]:
        machine.time += machine.validation
        return METRICS

    def slow_write(*arguments: Any) -> None:
        write(*arguments)
        machine.time += machine.save

    for module in (clock, due, loop, pace, progress, saving, validation):
        monkeypatch.setattr(module, "now", now)
    monkeypatch.setattr(loop, "step", slow_step)
    monkeypatch.setattr(validation, "measure", measure)
    monkeypatch.setattr(saving, "write", slow_write)
    return machine


@pytest.fixture
def by_the_clock(make_recipe: MakeRecipe) -> Callable[..., Recipe]:
    def make(**changes: Any) -> Recipe:
        return make_recipe(**{"schedule__minutes": 1, "log__every": 1, "validation__times": 4, **changes})

    return make


def entries(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_the_run_ends_in_time_with_validation_and_save(
    tmp_path: Path, by_the_clock: MakeRecipe, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.step, begin = 2.0, machine.time
    run = train(by_the_clock(), out=tmp_path / "run").run
    assert 56 <= machine.time - begin <= 60
    said = capsys.readouterr().err
    assert "1:00 min by the clock, in steps of 2 images" in said
    steps, validations = entries(run, "step"), entries(run, "validation")
    assert steps[-1]["step"] == validations[-1]["step"]
    saved = SavedState.read(run / "state.safetensors").progress
    assert saved.finished
    assert saved.step == saved.total == saved.validated == steps[-1]["step"]
    # The rate has followed the time from the warm-up to the end of the cosine.
    rates = [line["rate"] for line in steps]
    assert rates[0] < max(rates) == pytest.approx(0.01, rel=0.05)
    assert rates[-1] < 0.02 * max(rates)
    before = (run / "last.safetensors").read_bytes()
    train(resume=run, builder="tiny_detector:tiny")
    assert "this run is finished" in capsys.readouterr().err
    assert (run / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(("step", "cost"), [(0.5, 1.0), (1.0, 8.0), (4.0, 5.0), (13.0, 1.0), (5.0, 25.0)])
def test_slow_machines_keep_the_time_too(
    tmp_path: Path, by_the_clock: MakeRecipe, machine: Machine, step: float, cost: float
) -> None:
    """A slow machine makes fewer steps, and fewer validations where they would take most of the time."""
    machine.step, machine.validation = step, cost
    begin = machine.time
    run = train(by_the_clock(validation__times=10), out=tmp_path / "run").run
    used = machine.time - begin
    known = cost < 20  # nobody can know that the first validation takes as long as five steps
    assert used <= (60 if known else 60 + cost)
    assert used >= 60 - 2 * step - 1.2 * cost - 2
    measured = entries(run, "validation")
    assert 1 <= len(measured) <= 10
    assert cost * (len(measured) - 1) <= 0.25 * used + cost


def test_validations_are_spread_over_the_time(tmp_path: Path, by_the_clock: MakeRecipe, machine: Machine) -> None:
    machine.step, machine.validation, machine.save = 0.5, 0.5, 0.0
    recipe = by_the_clock(schedule__minutes=0.4)
    run = train(recipe, out=tmp_path / "times").run
    assert [entry["step"] for entry in entries(run, "validation")] == pytest.approx([12, 23, 34, 44], abs=1)
    recipe = override(recipe, {"validation.every": 3})  # an epoch has 6 steps
    run = train(recipe, out=tmp_path / "every").run
    assert [entry["step"] for entry in entries(run, "validation")] == [18, 36, pytest.approx(44, abs=1)]


def test_a_stopped_run_has_what_is_left(tmp_path: Path, by_the_clock: MakeRecipe, machine: Machine) -> None:
    """What was done after the last state is lost, and nothing else; the machine may be slower than before."""
    recipe = by_the_clock(log__save_every=5, validation__times=2)
    killed, original = tmp_path / "run", loop.step

    def kill(run: Any, *arguments: Any) -> Any:
        if run.progress.step == 22:
            raise MemoryError
        return original(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step", kill)
        with pytest.raises(MemoryError):
            train(recipe, out=killed)
    saved = SavedState.read(killed / "state.safetensors").progress
    assert saved.step == 20
    assert saved.seconds == pytest.approx(21.5)  # 20 steps and three saves
    machine.time += 5000  # it was off
    machine.step, begin = 2.0, machine.time
    train(resume=killed, builder="tiny_detector:tiny")
    assert 60 - 21.5 - 8 <= machine.time - begin <= 60 - 21.5
    rates = {entry["step"]: entry["rate"] for entry in entries(killed, "step")}
    assert rates[21] < rates[20]
    assert rates[max(rates)] < 0.02 * 0.01

    # More minutes: those before count.
    begin = machine.time
    train(
        override(from_yaml(killed / "recipe.yaml"), {"schedule.minutes": 1.5}),
        resume=killed,
        builder="tiny_detector:tiny",
    )
    assert 20 <= machine.time - begin <= 35
    # A number of steps in place of the time.
    done = SavedState.read(killed / "state.safetensors").progress.step
    train(
        override(from_yaml(killed / "recipe.yaml"), {"schedule.steps": done + 3}),
        resume=killed,
        builder="tiny_detector:tiny",
    )
    assert SavedState.read(killed / "state.safetensors").progress.step == done + 3


def test_a_continued_run_measures_nothing_before_it_knows_what_that_costs(
    tmp_path: Path, by_the_clock: MakeRecipe, machine: Machine
) -> None:
    """Stopped after half of the time, before any validation: the first step of the new process is no measure."""
    recipe, original = by_the_clock(validation__times=2, log__save_every=1), loop.step

    def kill(run: Any, *arguments: Any) -> Any:
        if run.progress.step == 8:
            machine.time += 30
        if run.progress.step == 9:
            raise MemoryError
        return original(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step", kill)
        patch.setattr(due, "_wanted", lambda *_: False)
        with pytest.raises(MemoryError):
            train(recipe, out=tmp_path / "run")
    run = train(resume=tmp_path / "run", builder="tiny_detector:tiny").run
    assert entries(run, "validation")[0]["step"] > 10


def test_a_time_too_short_for_anything_makes_one_step(tmp_path: Path, by_the_clock: MakeRecipe) -> None:
    run = train(by_the_clock(schedule__minutes=1e-6), out=tmp_path / "run").run
    assert [entry["step"] for entry in entries(run, "validation")] == [1]


def test_a_state_of_an_older_program_knows_no_time(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    run = train(make_recipe(schedule__steps=2), out=tmp_path / "run").run
    state = run / "state.safetensors"
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tree = json.loads(metadata["progress"])
    times = [name for name in tree if "seconds" in name or name in ("validating", "validated_share")]
    assert [tree.pop(name) for name in times] == [0, 0, 0, 0]
    del metadata["sha256"]  # older still
    save_file(tensors, state, {**metadata, "progress": json.dumps(tree)})
    assert SavedState.read(state).progress.step == 2


@pytest.mark.slow
def test_processes_agree_on_rates_and_end(tmp_path: Path, by_the_clock: MakeRecipe) -> None:
    """The first process decides; its word travels with the losses. Each process notes the rates that it used."""
    recipe = by_the_clock(schedule__minutes=0.1, batch_size=1)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys, torch\n"
        "torch.set_num_threads(1)\n"
        "from singleshot.training import from_yaml, loop, train\n"
        "rates, original = [], loop.step\n"
        "def step(run, batches, rate):\n"
        "    rates.append(rate)\n"
        "    return original(run, batches, rate)\n"
        "loop.step = step\n"
        "assert train(from_yaml(sys.argv[1]), out=sys.argv[2], builder='tiny_detector:tiny').metrics\n"
        "open(f'{sys.argv[2]}-{os.environ[\"RANK\"]}.json', 'w').write(json.dumps(rates))\n"
    )
    done = run_ranks(program, tmp_path / "recipe.yaml", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"run-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert len(first) == SavedState.read(tmp_path / "run/state.safetensors").progress.step
    assert len(set(first)) > 3


# ------------------------------------------------------------------------------------------------------------ the rate
def test_the_rate_by_time() -> None:
    cosine = Schedule(minutes=10, kind="cosine", final_factor=0.1)
    assert [rate_factor_by_time(cosine, 7, share) for share in (0, 0.5, 1)] == pytest.approx([1, 0.55, 0.1])
    step = Schedule(minutes=10, steps=120_000, milestones=(80_000, 100_000))
    assert [rate_factor_by_time(step, 7, share) for share in (0.6, 0.67, 0.83, 0.84)] == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )
    assert rate_factor_by_time(Schedule(minutes=10, kind="constant"), 7, 0.9) == 1


def test_the_warm_up_ends_by_its_steps_or_after_a_tenth_of_the_time() -> None:
    schedule = Schedule(minutes=10, kind="constant", warmup_steps=100, warmup_start=0.0)
    assert rate_factor_by_time(schedule, 50, 0.01) == pytest.approx(0.5)
    assert rate_factor_by_time(schedule, 100, 0.01) == 1
    assert rate_factor_by_time(schedule, 1, 0.05) == pytest.approx(0.5)
    assert rate_factor_by_time(schedule, 2, 0.1) == 1


# ---------------------------------------------------------------------------------------------------------- the length
def test_minutes_replace_the_recipes_own_length(make_recipe: MakeRecipe) -> None:
    for length in ({"schedule__epochs": 2}, {"schedule__images": 40}, {"schedule__steps": 5}):
        found = override(make_recipe(**length), {"schedule.minutes": "3"})
        assert found.schedule.unit == "minutes"
        check_length(found.schedule)
        assert total_steps(found.schedule, 10, 4) == 0
        assert override(found, {"schedule.epochs": "2"}).schedule.unit == "epochs"
    paper = override(Recipe(schedule=Schedule(steps=120, milestones=(80, 100))), {"schedule.minutes": 3})
    assert (paper.schedule.steps, paper.schedule.milestones) == (120, (80, 100))
    check_length(paper.schedule)


@pytest.mark.parametrize("other", ["epochs", "images", "steps"])
def test_minutes_and_another_length(tmp_path: Path, make_recipe: MakeRecipe, other: str) -> None:
    recipe = make_recipe(**{"schedule__minutes": 3, f"schedule__{other}": 7})
    with pytest.raises(
        UserError, match=rf"minutes \(3\) is the length of the run, and so is schedule\.{other} \(7\.?0?\)"
    ):
        train(recipe, out=tmp_path / "run")


def test_minutes_that_cannot_be(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    for minutes in (0, -1, 1e9):
        with pytest.raises(UserError, match=r"schedule\.minutes is .*; expected above 0, at most 525,600"):
            train(make_recipe(schedule__minutes=minutes), out=tmp_path / "run")
    for steps in (None, 70):
        with pytest.raises(UserError, match="as parts of schedule.steps"):
            check_length(Schedule(minutes=3, steps=steps, milestones=(60, 90)))


def test_the_end_that_was_decided_is_the_end() -> None:
    measured = Clock(1.0, 0.0)
    measured.follow(Verdict(0.9, over=True))
    measured.follow(Verdict(0.91, validate=True))
    assert measured.verdict == Verdict(0.91, validate=True, over=True)
