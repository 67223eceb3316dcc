"""The run folder. It is created once and never overwritten. Its files are replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from singleshot.errors import UserError
from singleshot.files import write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its recipe, log, weights and state."""

    path: Path

    @property
    def recipe(self) -> Path:
        """Every setting of the run, with its value."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        """One JSON document per line: the start, steps, validations."""
        return self.path / "log.jsonl"

    @property
    def last(self) -> Path:
        """The latest weights."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best validation. Without validation: the last weights."""
        return self.path / "best.safetensors"

    @property
    def state(self) -> Path:
        """All that is needed to continue exactly: weights, average, optimiser, random generators, progress."""
        return self.path / "state.safetensors"

    @classmethod
    def create(cls, out: str | Path | None, name: str) -> RunFolder:
        """A new folder: `out`, or the next free `runs/<name>-<n>`. Two processes never get the same one."""
        try:
            if out is not None:
                return cls(_create(Path(out)))
            Path("runs").mkdir(exist_ok=True)
            number = 1
            while True:
                try:
                    path = Path("runs") / f"{name}-{number}"
                    path.mkdir()
                    return cls(path)
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise UserError(
                f"the run folder {error.filename} cannot be created: {error.strerror}; choose another with --out"
            ) from None

    @staticmethod
    def must_be_new(path: str | Path) -> None:
        """Refuse a folder that is not empty: a run is never overwritten."""
        path = Path(path)
        try:
            taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
        except OSError as error:
            raise UserError(f"the run folder {path} cannot be read: {error.strerror}; choose another --out") from None
        if taken and not path.is_dir():
            raise UserError(f"{path}: this is a file, but a new run folder is needed; choose another --out")
        if taken and not RunFolder(path).recipe.is_file():
            raise UserError(f"{path}: this folder has other files in it; choose a new run folder with --out")
        if taken:
            raise UserError(
                f"{path}: this folder already holds a run, and runs are never overwritten; "
                f"choose another --out, or continue that run with --resume {path}"
            )

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run, to continue it."""
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise UserError(f"{path}: there is no folder of this name; give --resume the folder of a run")
        if not folder.recipe.is_file():
            raise UserError(
                f"{path}: this folder has no {folder.recipe.name}, so it is not a run folder; "
                "give --resume the folder of a run"
            )
        if not folder.state.is_file():
            raise UserError(
                f"{path}: there is nothing to resume: the run stopped before its state was first saved. "
                f"Start it again with `singleshot train --recipe {folder.recipe}`"
            )
        return folder

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from training in this folder. Raises `UserError` if one already does."""
        return only_one(self.path, "another process is training in this run folder; wait for it, or stop it first")

    def write(self, path: Path, content: bytes) -> None:
        """Write a file as a whole: readers see the old file or the new one, never a part."""
        with saving(path):
            write_atomically(path, content)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        line = (json.dumps(entry) + "\n").encode()
        with saving(self.log), self.log.open("ab") as file:
            file.write(line)

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Remove the lines that were written after the saved state, and an incomplete last line."""
        kept = []
        for line in self.log.read_bytes().splitlines(keepends=True) if self.log.exists() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n") and isinstance(entry, dict) and keep(entry):
                kept.append(line)
        self.write(self.log, b"".join(kept))


@contextmanager
def only_one(folder: Path, taken: str) -> Iterator[None]:
    """Lock the folder for this process alone, if the disk supports locks.

    Raises:
        UserError: another process holds the lock. The message is `taken`: what the folder is used for, what to do.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: {taken}") from None
    except OSError:
        pass  # some network disks have no locks; a folder that is not writable is reported at the first write
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows does not delete an open file
                Path(lock.lock_file).unlink()
            lock.release()


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failed write into one message. Files are replaced as a whole, so the old file stays intact.

    Raises:
        UserError: the disk is full, or writing is not allowed.
    """
    try:
        yield
    except OSError as error:
        old = f"; the {path.name} saved before is intact" if path.exists() else ""
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}){old}. Free some space, or make the folder "
            f"writable, then continue with `singleshot train --resume {path.parent}`"
        ) from None


def _create(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        RunFolder.must_be_new(path)
    return path
