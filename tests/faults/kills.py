"""Kills and signals at any moment of a run, two processes in one run folder, loader workers that are killed.

However a run is stopped, it can be continued, and at its end it is bit-equal to the run that was not stopped.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faults.kinds import Case, Kind
from faults.programs import (
    assert_same_run,
    made_once,
    next_words,
    resume_words,
    run,
    small_data,
    start,
    train_words,
    wait_until,
    write_recipe,
)

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")]
_WATCHDOG = 30  # seconds in which torch's workers see that their process has gone; they look every 5


@dataclass(frozen=True)
class Shared:
    """The runs that were not stopped."""

    recipes: list[Path]  # with 0, 1, 2 workers of the loader
    whole: list[Path]
    seconds: float  # that one takes


def prepare(folder: Path) -> Shared:
    place = made_once(folder, "runs", _train)
    seconds = float((place / "seconds").read_text())
    return Shared([place / f"{n}.yaml" for n in range(3)], [place / f"whole-{n}" for n in range(3)], seconds)


def _train(place: Path) -> None:
    data = small_data(place / "data")
    began = time.monotonic()
    for workers in range(3):
        recipe = write_recipe(place / f"{workers}.yaml", data, steps=12, save=3, workers=workers)
        run(train_words(recipe, place / f"whole-{workers}"), place / "said.txt").succeeded()
    (place / "seconds").write_text(str((time.monotonic() - began) / 3))


def finish(workers: int, here: Path, shared: Shared, said: Path) -> None:
    """Continue to the end; the result has to be that of the whole run."""
    ended = run(next_words(shared.recipes[workers], here), said).succeeded()
    print(ended.said)
    assert_same_run(here, shared.whole[workers])


def children(process: int | None) -> set[int]:
    """The children of a process that still run."""
    return {child for child, parent in _running().items() if parent == process}


def _running() -> dict[int, int]:
    """Every process that runs -> its parent."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


# --- SIGKILL


def make_kill(rng: np.random.Generator, number: int) -> Case:
    moments = rng.uniform(0, 1.1, int(rng.integers(1, 4))).round(3).tolist()
    workers = number % 3
    return Case(f"SIGKILL at {moments} of a run's time, {workers} workers", plan=(moments, workers))


def check_kill(case: Case, shared: Shared, folder: Path) -> None:
    moments, workers = case.plan
    here, recipe, orphans = folder / "run", shared.recipes[workers], set[int]()
    for turn, moment in enumerate(moments):
        running = start(next_words(recipe, here), folder / f"said-{turn}.txt")
        time.sleep(moment * shared.seconds)
        orphans |= children(running.process.pid)
        running.signal(signal.SIGKILL)
        ended = running.wait()
        print(ended, orphans)
        assert ended.code in (0, -signal.SIGKILL), ended
    finish(workers, here, shared, folder / "said.txt")
    wait_until(lambda: not orphans & _running().keys(), _WATCHDOG)


# --- signals that ask for a stop


def make_signal(rng: np.random.Generator, number: int) -> Case:
    which = STOPS[number % len(STOPS)]
    moment, times, workers = round(rng.uniform(0, 1.1), 3), int(rng.integers(1, 3)), int(rng.integers(0, 3))
    what = f"{which.name} at {moment} of a run's time, {times} times, {workers} workers"
    return Case(what, plan=(which, moment, times, workers))


def check_signal(case: Case, shared: Shared, folder: Path) -> None:
    which, moment, times, workers = case.plan
    here, recipe = folder / "run", shared.recipes[workers]
    running = start(train_words(recipe, here), folder / "said-0.txt")
    time.sleep(moment * shared.seconds)
    for _ in range(times):
        running.signal(which)
    ended = running.wait()
    print(ended)
    assert "Traceback" not in ended.said, ended.said
    log = here / "log.jsonl"
    stepped = log.exists() and '"kind": "step"' in log.read_text()
    if ended.code == 130:
        assert not stepped or "--resume" in ended.said, ended
    elif ended.code == -which:  # the system's own answer, while nothing runs yet or all is done
        assert not stepped or "best:" in ended.said, "a run that has begun saves before it stops"
    else:
        assert ended.code == 0, ended
    finish(workers, here, shared, folder / "said.txt")


# --- two at once


def make_two(rng: np.random.Generator, number: int) -> Case:
    first, gap = round(rng.uniform(0.3, 0.9), 3), round(rng.uniform(0, 0.3), 3)
    what = ("two resumes", "a run and a resume")[number % 2]
    return Case(f"{what}, {gap} of a run's time apart, at {first} of it", plan=(number % 2, first, gap))


def check_two(case: Case, shared: Shared, folder: Path) -> None:
    fresh, first, gap = case.plan
    here, recipe = folder / "run", shared.recipes[0]
    one = start(train_words(recipe, here), folder / "said-1.txt")
    wait_until(lambda: (here / "state.safetensors").exists() or not one.process.is_alive())
    if not fresh:
        time.sleep(first * shared.seconds / 2)
        one.signal(signal.SIGKILL)
        one.wait()
        one = start(resume_words(here), folder / "said-1.txt")
    time.sleep(gap * shared.seconds)
    ended = [running.wait() for running in (one, start(resume_words(here), folder / "said-2.txt"))]
    print(ended)
    refused = [one for one in ended if one.refused()]
    assert len(refused) < 2, "one of the two goes on"
    assert all("another process" in one.said for one in refused), refused
    assert_same_run(here, shared.whole[0])


# --- loader workers


def make_worker(rng: np.random.Generator, number: int) -> Case:
    workers, moment = int(rng.integers(1, 3)), round(rng.uniform(0, 0.6), 3)
    return Case(f"one of {workers} workers killed after {moment} of a run's time", plan=(workers, moment))


def check_worker(case: Case, shared: Shared, folder: Path) -> None:
    workers, moment = case.plan
    here, recipe = folder / "run", shared.recipes[workers]
    running = start(train_words(recipe, here), folder / "said-0.txt")
    process = running.process.pid or 0
    wait_until(lambda: len(children(process)) == workers)
    one = min(children(process))
    time.sleep(moment * shared.seconds)
    with suppress(ProcessLookupError):  # it has ended with the run
        os.kill(one, signal.SIGKILL)
    ended = running.wait()
    print(ended)
    if ended.refused():
        assert "--resume" in ended.said, ended.said
    finish(workers, here, shared, folder / "said.txt")


def _kind(line: str, make: Any, check: Any, cases: int, fast: int) -> Kind:
    return Kind(line, make, check, cases, fast, prepare=prepare, seconds=120)


KILL = _kind(
    "a run killed up to three times: continued, it is bit-equal; no worker stays", make_kill, check_kill, 100, 2
)
SIGNAL = _kind("a run asked to stop: it saves and says how to go on; bit-equal", make_signal, check_signal, 100, 4)
TWO = _kind("two processes in one run folder: one of them trains; bit-equal", make_two, check_two, 40, 2)
WORKER = _kind("a loader worker killed: a message and a run that goes on, bit-equal", make_worker, check_worker, 40, 2)
