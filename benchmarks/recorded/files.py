"""Files that several processes write: lines that are never lost, and folders that one of them has for itself."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from singleshot.training.folder import only_one as alone


def texts(path: Path) -> list[str]:
    """The lines of a file, none where there is no file; waits while a line is being written."""
    if not path.exists():
        return []
    with path.open() as file, locked(file, shared=True):
        return file.read().splitlines()


def append(path: Path, line: dict[str, Any], same: Callable[[dict[str, Any]], bool]) -> bool:
    """One more line of JSON, on the disk when this returns; False, and nothing written, where `same` knows one already.

    Processes that append to one file take turns. A damaged line is never the same: whoever reads it refuses it, but a
    result that took hours is not lost for it.
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
    """Inside, no other process holds this lock, or (`shared`) only others that share it.

    Does nothing where the system or the disk has no such locks.
    """
    with contextlib.suppress(ImportError):
        import fcntl

        with contextlib.suppress(OSError):  # some network disks
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    yield  # closing the file gives the lock back


def only_one(folder: Path, instead: str) -> contextlib.AbstractContextManager[None]:
    """Inside, no other process makes runs in this folder; `UserError` where one does, and `instead` says what to do."""
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
    """What a run wrote about itself."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
