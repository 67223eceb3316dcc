"""A disk that fails while a command reads: one message that names the file, and exit code 2.

The n-th opening, or a reading, of a file below the folder of the data and the weights raises what a broken disk does.
Only what Python reads is seen: weights are mapped into memory by their library.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faults.crash import point_of, prepare_data
from faults.kinds import Case, Kind
from faults.programs import BUILDER, assert_same_run, next_words, run, train_words

COMMANDS: dict[str, Callable[[Shared, Path], Sequence[str]]] = {
    "train": lambda shared, out: train_words(shared.recipe, out),
    "evaluate": lambda shared, out: ["evaluate", str(shared.model), str(shared.data), "--builder", BUILDER],
    "detect": lambda shared, out: ["detect", str(shared.model), str(shared.images), "--builder", BUILDER],
    "data check": lambda shared, out: ["data", "check", str(shared.data)],
    "data show": lambda shared, out: ["data", "show", str(shared.data), "--out", str(out / "sheet.png")],
}
ERRORS = (errno.EIO, errno.EACCES, errno.ENOENT, errno.ESTALE)


@dataclass(frozen=True)
class Shared:
    """What the commands read."""

    data: Path
    model: Path
    images: Path
    recipe: Path
    points: dict[str, int]  # command -> how often it opens or reads


@dataclass
class Readings:
    """Openings and readings of files below a folder, counted; number `at` raises an error."""

    folder: Path
    at: int | None = None
    error: int = errno.EIO
    told: Path | None = None  # the number is written here
    _count: int = 0

    def install(self) -> None:
        """Replace Python's `open` in this process, for good."""
        self._open = builtins.open
        builtins.open = io.open = self._opened  # type: ignore[assignment]

    def point(self, path: str) -> None:
        """One opening or reading."""
        self._count += 1
        if self.told is not None:
            with self._open(self.told, "w") as file:
                file.write(str(self._count))
        if self._count == self.at:
            raise OSError(self.error, os.strerror(self.error), path)

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        inside = not isinstance(file, int) and os.path.abspath(os.fsdecode(file)).startswith(f"{self.folder}{os.sep}")
        if not inside or set(mode) & set("wax+") or more or "opener" in named:
            return self._open(file, mode, buffering, *more, **named)
        path = os.fsdecode(file)
        self.point(path)
        raw: Any = _Read(self, path)
        buffered = raw if buffering == 0 else io.BufferedReader(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, **{name: named.get(name) for name in ("encoding", "errors", "newline")})


class _Read(io.FileIO):
    """A file whose readings are points."""

    def __init__(self, readings: Readings, path: str) -> None:
        self.readings, self.path = readings, path
        super().__init__(path, "r")

    def readinto(self, buffer: Any) -> Any:
        self.readings.point(self.path)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.readings.point(self.path)
        return super().readall()


def prepare(folder: Path) -> Shared:
    data, model, images = prepare_data(folder)
    shared, points = Shared(data, model, images, model.parents[1] / "recipe.yaml", {}), {}
    for name, words in COMMANDS.items():
        told = folder / "count"
        run(words(shared, folder / name), folder / "said.txt", Readings(data, told=told).install).succeeded()
        points[name] = int(told.read_text())
    return Shared(data, model, images, shared.recipe, points)


def make(rng: np.random.Generator, number: int) -> Case:
    command, number = list(COMMANDS)[number % len(COMMANDS)], number // len(COMMANDS)
    error = ERRORS[number % len(ERRORS)]
    return Case(f"{command}: reading {number} gives {errno.errorcode[error]}", plan=(command, number, error))


def check(case: Case, shared: Shared, folder: Path) -> None:
    command, number, error = case.plan
    at, out = point_of(number, shared.points[command]), folder / "out"
    print(f"reading {at} of {shared.points[command]}", flush=True)
    ended = run(COMMANDS[command](shared, out), folder / "said.txt", Readings(shared.data, at, error).install)
    print(ended.said)
    if ended.refused():
        assert str(shared.data) in ended.said, "the message names the file"
        assert "--resume" in ended.said or not (out / "state.safetensors").exists(), "and says how a run goes on"
    if command == "train":
        run(next_words(shared.recipe, out), folder / "said.txt").succeeded()
        assert_same_run(out, shared.model.parent)


KIND = Kind(
    "commands on a disk that fails while it is read: a message that names the file", make, check, 300, 5,
    prepare=prepare, seconds=60,
)  # fmt: skip
