"""Kills and signals at any moment of a run, two processes in one run folder, loader workers that are killed.

However a run is stopped, it can be continued, and at its end it is bit-equal to the run that was not stopped.
"""

from __future__ import annotations

import ctypes
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
    Running,
    assert_same_run,
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
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl


@dataclass(frozen=True)
class Shared:
    """The runs that were not stopped."""

    recipes: list[Path]  # with 0, 1, 2 workers of the loader
    whole: list[Path]
    seconds: float  # that one takes


def prepare(folder: Path) -> Shared:
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)  # workers that lose their process become this one's children
    data = small_data(folder / "data")
    recipes = [
        write_recipe(folder / f"{workers}.yaml", data, steps=12, save=3, workers=workers) for workers in range(3)
    ]
    whole = [folder / f"whole-{workers}" for workers in range(3)]
    began = time.monotonic()
    for recipe, here in zip(recipes, whole, strict=True):
        run(train_words(recipe, here), folder / "said.txt").succeeded()
    return Shared(recipes, whole, (time.monotonic() - began) / 3)


def finish(workers: int, here: Path, shared: Shared, said: Path) -> None:
    """Continue to the end; the result has to be that of the whole run."""
    ended = run(next_words(shared.recipes[workers], here), said).succeeded()
    print(ended.said)
    assert_same_run(here, shared.whole[workers])
    wait_until(lambda: not children(os.getpid()), _WATCHDOG)


def children(process: int) -> list[int]:
    """The children of a process that still run; those of this one that have ended are taken off the list."""
    with suppress(OSError):
        found = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        if process != os.getpid():
            return found
        running = []
        for child in found:
            with suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG) == (0, 0):
                    running.append(child)
        return running
    return []


# --- SIGKILL


def make_kill(rng: np.random.Generator, number: int) -> Case:
    moments = rng.uniform(0, 1.1, int(rng.integers(1, 4))).round(3).tolist()
    workers = int(rng.integers(0, 3))
    return Case(f"SIGKILL at {moments} of a run's time, {workers} workers", plan=(moments, workers))


def check_kill(case: Case, shared: Shared, folder: Path) -> None:
    moments, workers = case.plan
    here, recipe = folder / "run", shared.recipes[workers]
    for turn, moment in enumerate(moments):
        running = start(next_words(recipe, here), folder / f"said-{turn}.txt")
        time.sleep(moment * shared.seconds)
        running.signal(signal.SIGKILL)
        ended = running.wait()
        print(ended)
        assert ended.code in (0, -signal.SIGKILL), ended
    finish(workers, here, shared, folder / "said.txt")


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
    workers, moment = int(rng.integers(1, 3)), round(rng.uniform(0.2, 1.0), 3)
    return Case(f"one of {workers} workers killed at {moment} of a run's time", plan=(workers, moment))


def check_worker(case: Case, shared: Shared, folder: Path) -> None:
    workers, moment = case.plan
    here, recipe = folder / "run", shared.recipes[workers]
    running = start(train_words(recipe, here), folder / "said-0.txt")
    time.sleep(moment * shared.seconds)
    killed = kill_a_worker(running)
    ended = running.wait()
    print(killed, ended)
    if ended.refused():
        assert killed
        assert "--resume" in ended.said, ended.said
    finish(workers, here, shared, folder / "said.txt")


def kill_a_worker(running: Running) -> bool:
    """Kill one of the children of a run as soon as there is one; whether there was one."""
    while running.process.is_alive():
        for child in children(running.process.pid or 0):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                return True
        time.sleep(0.005)
    return False


def _kind(line: str, make: Any, check: Any, cases: int, fast: int) -> Kind:
    return Kind(line, make, check, cases, fast, prepare=prepare, seconds=120)


KILL = _kind(
    "a run killed up to three times: continued, it is bit-equal; no worker stays", make_kill, check_kill, 100, 3
)
SIGNAL = _kind("a run asked to stop: it saves and says how to go on; bit-equal", make_signal, check_signal, 100, 4)
TWO = _kind("two processes in one run folder: one of them trains; bit-equal", make_two, check_two, 40, 2)
WORKER = _kind("a loader worker killed: a message and a run that goes on, bit-equal", make_worker, check_worker, 40, 2)
