"""Signals, a terminal that is gone, a loader's process that was killed: the run is saved, and says how to continue."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from singleshot.data.loader import WorkerLostError, train_loader
from singleshot.data.open import open_dataset
from singleshot.data.transforms import Compose
from singleshot.errors import UserError
from singleshot.training import log, override, to_yaml, train
from singleshot.training.interrupt import stop_signals
from singleshot.training.progress import Display
from singleshot.training.recipe import Recipe
from singleshot.training.run import Run
from singleshot.training.state import SavedState

pty = pytest.importorskip("pty")  # not on Windows
resource = pytest.importorskip("resource")
MakeRecipe = Callable[..., Recipe]
HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_signals_that_save(name: str) -> None:
    number = signal.Signals[name]
    handlers = (signal.default_int_handler, signal.SIG_DFL)
    outside = signal.signal(number, handlers[name != "SIGINT"])  # a test run may have been started with it ignored
    try:
        before = signal.getsignal(number)
        with stop_signals() as asked:
            signal.raise_signal(number)
            assert asked.stop
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outside)


def test_a_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once it is the launcher's echo of the first; some seconds later it is meant."""
    with stop_signals() as asked:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(asked, "patience", 0.0)
        with pytest.raises(KeyboardInterrupt, match="stopped at once; --resume continues from the state saved last"):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_an_ignored_signal_stays_ignored(name: str) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals() as asked:
            signal.raise_signal(number)
            assert not asked.stop
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


# ------------------------------------------------------------------------------------------------------------- screen
class Gone:
    """A terminal that was closed."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    flush = write  # type: ignore[assignment]


def test_a_screen_that_is_gone_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    display = Display(10)
    with display:
        display.begin(0)
        display.say("hello")
        display.step(1, {"box": 1.0}, rate=0.1, speed=1.0, share=0.1, left=None)
        display.say("again")
    assert display.quiet
    display = Display(10)
    display.bar = None
    display.say("hello")  # without a bar too
    assert display.quiet


@pytest.mark.slow
def test_a_closed_terminal(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    """The real thing: the terminal's end sends SIGHUP, and every write to it fails from then on."""
    recipe = make_recipe(schedule__steps=4000, validation__every=10_000, data__workers=1)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    run = tmp_path / "run"
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    process, terminal = pty.fork()
    if process == 0:
        os.environ["PYTHONPATH"] = path
        words = ["train", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(run)]
        os.execv(sys.executable, [sys.executable, "-m", "singleshot", *words])
    end = time.monotonic() + 120
    while not ((run / "log.jsonl").exists() and '"kind": "step"' in (run / "log.jsonl").read_text()):
        os.set_blocking(terminal, False)
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 100_000)  # a full terminal would make the run wait
        assert time.monotonic() < end
        time.sleep(0.02)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert 0 < SavedState.read(run / "state.safetensors").progress.step < 4000


# ------------------------------------------------------------------------------------------------------------- loader
@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks for ended workers every five seconds."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))


def kill_worker() -> None:
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)


@pytest.mark.usefixtures("quick_look")
def test_a_killed_worker_ends_the_run_with_all_saved(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = log.record

    def record(run: Run, pending: Any) -> Any:
        report = original(run, pending)
        if report.step == 3:
            kill_worker()
        return report

    handler = signal.getsignal(signal.SIGCHLD)
    recipe = make_recipe(data__workers=1, validation__every=100)
    with monkeypatch.context() as patch:
        patch.setattr(log, "record", record)
        with pytest.raises(UserError, match=r"killed by the signal SIGKILL. Is the machine out of memory") as error:
            train(recipe, out=tmp_path / "run")
    step = SavedState.read(tmp_path / "run/state.safetensors").progress.step
    assert step >= 4
    resume = f"singleshot train --resume {tmp_path / 'run'} --builder tiny_detector:tiny"
    assert f"saved after step {step} of 14: continue with `{resume}`" in str(error.value)
    assert "--data.workers" in str(error.value)
    assert signal.getsignal(signal.SIGCHLD) is handler
    monkeypatch.undo()
    train(override(recipe, {"data.workers": 0}), resume=tmp_path / "run")


@pytest.mark.usefixtures("quick_look")
def test_a_worker_that_ends_by_itself(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("singleshot.data.loader._read", lambda *given: os._exit(7))
    batches = iter(train_loader(open_dataset(squares, split="train"), Compose(()), batch_size=1, seed=0, workers=1))
    with pytest.raises(WorkerLostError, match="gone: it ended with the exit code 7"):
        next(batches)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how Linux makes shared memory")
def test_full_shared_memory_is_said_and_nothing_waits(
    tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the size of files counts for shared memory too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr("singleshot.data.loader._read", lambda *given: np.zeros((1000, 1000, 3), np.uint8))
    batches = train_loader(open_dataset(squares, split="train"), Compose(()), batch_size=1, seed=0, workers=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"a batch finds no place in shared memory .*--data.workers N"):
            next(iter(batches))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
