"""Commands of singleshot in forked processes, on small data, and how the results of two of them are compared."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import pkgutil
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import singleshot
from singleshot.cli import main
from singleshot.cli.explain import explain
from singleshot.data.shapes import write_shapes

# What commands import on their way: loaded once, before anything is forked.
for _module in pkgutil.walk_packages(singleshot.__path__, "singleshot."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
for _name in ("torch._dynamo", "hotcoco", "accelerate.utils", "sympy", "matplotlib.pyplot", "rich._emoji_codes"):
    importlib.import_module(_name)
PIL.Image.init()

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
BUILDER = "tiny_detector:tiny"
FORK = multiprocessing.get_context("fork")
Files = dict[str, bytes]

RECIPE = """\
name: tiny
builder: tiny_detector:tiny
arguments: {{dropout: 0.2}}
batch_size: 2
seed: 3
data: {{path: {data}, workers: {workers}}}
optimizer: {{name: adamw, lr: 0.003, base_batch_size: 0}}
schedule: {{steps: {steps}, kind: cosine, warmup_steps: 2}}
validation: {{every: {validate}}}
ema: {{decay: 0.9}}
compute: {{device: cpu, precision: fp32}}
log: {{every: 2, save_every: {save}}}
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int  # its exit code; minus the number of the signal that killed it
    said: str  # what it printed, to both streams

    def refused(self) -> bool:
        """Whether it ended with one message to the user. Raises where it neither did that nor what it was asked to."""
        assert self.code in (0, 2), f"exit code {self.code}:\n{self.said[-5000:]}"
        assert "Traceback" not in self.said, self.said[-5000:]
        return self.code == 2

    def succeeded(self) -> Ended:
        """This, if it did what it was asked to."""
        assert not self.refused(), self.said[-5000:]
        return self


@dataclass
class Running:
    """A forked process."""

    process: BaseProcess
    said: Path

    def wait(self, seconds: float = 60) -> Ended:
        """Wait for its end. Raises if it takes longer."""
        end = time.monotonic() + seconds
        while self.process.exitcode is None:  # `join` also waits for the workers that a killed process leaves
            assert time.monotonic() < end, f"still running: {self.said.read_text(errors='replace')[-3000:]}"
            time.sleep(0.005)
        return Ended(self.process.exitcode, self.said.read_text(errors="replace"))

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process.exitcode is None:
            os.kill(self.process.pid or 0, number)


def start(do: Sequence[str] | Callable[[], object], said: Path, before: Callable[[], object] | None = None) -> Running:
    """Run a command (or a function, as a command would be) in a forked process; `before` is called there first."""
    process = FORK.Process(target=_command, args=(do, said, before))
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the command can answer it
    process.start()
    signal.signal(signal.SIGINT, handler)
    return Running(process, said)


def run(do: Sequence[str] | Callable[[], object], said: Path, before: Callable[[], object] | None = None) -> Ended:
    """`start` a command and wait for its end."""
    return start(do, said, before).wait()


def _command(do: Sequence[str] | Callable[[], object], said: Path, before: Callable[[], object] | None) -> None:
    target = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    if before is not None:
        before()
    if not callable(do):
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.exit(main(do))
        except KeyboardInterrupt:  # before the command's own answer to it
            sys.exit(130)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        do()
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"singleshot: {message}", file=sys.stderr)
        sys.exit(2)


def made_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that several kinds start from and none of them changes: `make` fills it when the first asks for it.

    `folder`: that of a kind's `prepare`, SUITE/KIND/PART/shared. Parts run side by side, and each makes its own.
    """
    place = folder.parents[2] / "common" / folder.parent.name / name
    made = place / ".made"
    if not made.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place)
        made.touch()
    return place


def small_data(folder: Path) -> Path:
    """A Pascal VOC folder with 9 training images and 3 to validate on, 160 x 160."""
    return write_shapes(folder, train=9, val=3, size=160) / "voc"


def write_recipe(
    path: Path, data: Path, *, steps: int = 6, save: int = 2, workers: int = 0, validate: float = 0.7
) -> Path:
    """The recipe of a short run; an epoch has 4.5 steps."""
    path.write_text(RECIPE.format(data=data, steps=steps, save=save, workers=workers, validate=validate))
    return path


def train_words(recipe: Path, run: Path) -> list[str]:
    """The command that starts a run."""
    return ["train", "--recipe", str(recipe), "--builder", BUILDER, "--out", str(run)]


def resume_words(run: Path) -> list[str]:
    """The command that continues it."""
    return ["train", "--resume", str(run), "--builder", BUILDER]


def next_words(recipe: Path, run: Path) -> list[str]:
    """What a user types after a stop: `--resume`, and the first command again where nothing was saved yet."""
    return resume_words(run) if (run / "state.safetensors").exists() else train_words(recipe, run)


def log_of(run: Path) -> list[dict[str, Any]]:
    """The log without what differs from run to run: the clock, and the lines that mark a start."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clock = ("time", "images_per_second")
    return [{k: v for k, v in entry.items() if k not in clock} for entry in entries if entry["kind"] != "start"]


def assert_same_run(one: Path, other: Path) -> None:
    """Both runs have the same weights, state and log, bit for bit, and nothing else is left."""
    assert names(one) == names(other)
    for name in ("last", "best", "state"):
        a, b = load_file(one / f"{name}.safetensors"), load_file(other / f"{name}.safetensors")
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), f"{name}: {key}"
    for name in ("last", "best"):
        assert _metadata(one / f"{name}.safetensors") == _metadata(other / f"{name}.safetensors"), name
    assert log_of(one) == log_of(other)


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def names(folder: Path) -> list[str]:
    """The files of a folder and of its subfolders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> Files:
    """Name -> content of every file of a folder."""
    return {name: (folder / name).read_bytes() for name in names(folder)}


def write_contents(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def wait_until(ready: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again. Raises if it takes longer."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.01)
