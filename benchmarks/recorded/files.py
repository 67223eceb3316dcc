"""Files that several processes write: lines that are never lost, and folders that only one process uses."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from singleshot.training.folder import only_one as alone


def texts(path: Path) -> list[str]:
    """The lines of a file; empty if there is no file. Waits while a line is being written."""
    if not path.exists():
        return []
    with path.open() as file, locked(file, shared=True):
        return file.read().splitlines()


def append(path: Path, line: dict[str, Any], same: Callable[[dict[str, Any]], bool]) -> bool:
    """Add a line of JSON; it is on the disk when this returns. Writes nothing and returns False if `same` finds one.

    Processes that append to one file take turns. A damaged line never counts as the same. Readers refuse it, but a
    result that took hours is not lost because of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file, locked(file):
        file.seek(0)
        before = file.read()
        for text in before.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                if same(json.loads(text)):
                    return False
        separated = b"" if not before or before.endswith(b"\n") else b"\n"
        file.write(separated + (json.dumps(line) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    return True


@contextlib.contextmanager
def locked(file: IO[Any], *, shared: bool = False) -> Iterator[None]:
    """Hold this lock alone, or (`shared`) together with others that share it.

    Does nothing if the system or the disk has no such locks.
    """
    with contextlib.suppress(ImportError):
        import fcntl

        with contextlib.suppress(OSError):  # some network disks
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    yield  # closing the file releases the lock


def only_one(folder: Path, instead: str) -> contextlib.AbstractContextManager[None]:
    """Keep other processes from making runs in this folder; `UserError` if one already does. `instead` is advice."""
    folder.mkdir(parents=True, exist_ok=True)
    return alone(folder, f"another process makes runs in this folder; wait for it, stop it first, or {instead}")


def curve(folder: Path) -> list[list[float]]:
    """[epoch, AP] of each validation of a run."""
    return [
        [round(entry["epoch"], 2), round(entry["metrics"]["coco"]["AP"], 4)]
        for entry in log(folder)
        if entry["kind"] == "validation"
    ]


def log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
