"""Fails or kills this process at its n-th change of a folder: every open, write, fsync, rename, unlink is a point.

Python's own functions are replaced, so this sees what Python code writes, which is all that singleshot writes.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

MODES = {
    "before": "killed before it",
    "in": "killed in the middle of it",
    "power": "the power fails before it, and what was not synced is lost",
    "full": "the disk is full from there on",
    "error": "the disk gives an error",
}
_GROWS = ("open", "write", "mkdir", "link")  # what a full disk refuses


@dataclass
class Points:
    """The changes of a folder, counted. At number `at` the process is killed, or the change fails, as `mode` says."""

    folder: Path
    at: int | None = None  # None: nothing happens
    mode: str = "before"
    told: Callable[[str], object] = lambda line: None  # hears of every point
    _count: int = 0
    _synced: dict[str, int] = field(default_factory=dict)  # file -> bytes of it that a power failure leaves

    def install(self) -> None:
        """Replace Python's functions in this process, for good."""
        self.folder = Path(os.path.abspath(self.folder))
        self._open, self._replace, self._fsync = os.open, os.replace, os.fsync
        for name in ("mkdir", "rmdir", "unlink", "chmod"):
            self._one_path(name)
        os.remove = os.unlink
        for name in ("replace", "rename", "link"):
            self._two_paths(name)
        os.open = self._os_open  # type: ignore[assignment]
        os.fsync = self._os_fsync
        os.fdopen = self._fdopen  # type: ignore[assignment]
        builtins.open = io.open = self._io_open  # type: ignore[assignment]

    def point(self, what: str, path: str, do: Callable[[], Any], part: Callable[[], Any] | None = None) -> Any:
        """One change: do it, unless its number is the one. `part` does a part of it."""
        self._count += 1
        name = os.path.relpath(path, self.folder)
        self.told(f"{what} {name}")
        if self.at is None or self._count < self.at:
            return do()
        if self._count == self.at:
            if self.mode == "in":
                with suppress(OSError):  # a folder that exists already
                    (part or do)()
            if self.mode == "power":
                self._lose()
            if self.mode in ("before", "in", "power"):
                _die()
            if self.mode == "error":
                _refuse(errno.EIO, path, part)
        if self.mode == "full" and what in _GROWS:
            _refuse(errno.ENOSPC, path, part if self._count == self.at else None)
        return do()

    def inside(self, path: Any) -> bool:
        """Whether a change of this path counts."""
        if isinstance(path, int):
            return False
        path = os.path.abspath(os.fsdecode(path))
        # The lock is an empty file that the system frees with its process; Python's file lock retries what fails.
        return path.startswith(f"{self.folder}{os.sep}") or path == str(self.folder)

    def _lose(self) -> None:
        for path, size in self._synced.items():
            if os.path.exists(path) and os.path.getsize(path) > size:
                os.truncate(path, size)

    def _one_path(self, name: str) -> None:
        original = getattr(os, name)

        def changed(path: Any, *more: Any, **named: Any) -> Any:
            nothing = name == "mkdir" and os.path.isdir(path)  # it is there already
            if nothing or named.get("dir_fd") is not None or not self.inside(path):
                return original(path, *more, **named)
            return self.point(name, os.fsdecode(path), lambda: original(path, *more, **named))

        setattr(os, name, changed)

    def _two_paths(self, name: str) -> None:
        original = getattr(os, name)

        def changed(one: Any, two: Any, **named: Any) -> Any:
            if not self.inside(two):
                return original(one, two, **named)
            self.point(name, os.fsdecode(two), lambda: original(one, two, **named))
            old, new = (os.path.abspath(os.fsdecode(path)) for path in (one, two))
            if name != "link" and old in self._synced:
                self._synced[new] = self._synced.pop(old)

        setattr(os, name, changed)

    def _os_open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) or not self.inside(path):
            return self._open(path, flags, *more, **named)
        path = os.path.abspath(os.fsdecode(path))
        if os.path.exists(path) and not flags & os.O_TRUNC:
            self._synced.setdefault(path, os.path.getsize(path))
            return self._open(path, flags, *more, **named)
        self._synced[path] = 0
        return self.point("open", path, lambda: self._open(path, flags, *more, **named))  # type: ignore[no-any-return]

    def _os_fsync(self, fd: Any) -> None:
        path = _path_of(fd)
        if not self.inside(path):
            return self._fsync(fd)
        self.point("fsync", path, lambda: self._fsync(fd))
        if path in self._synced:
            self._synced[path] = os.path.getsize(path)

    def _fdopen(self, fd: int, mode: str = "r", *more: Any, **named: Any) -> Any:
        return builtins.open(fd, mode, *more, **named)

    def _io_open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        raw_mode = mode.replace("b", "").replace("t", "")
        path = _path_of(file) if isinstance(file, int) else file
        if raw_mode == "r" or not self.inside(path):
            return _OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw: Any = _Watched(self, os.fsdecode(path), file, raw_mode, closefd, opener or self._opener)
        if buffering == 0:
            return raw
        buffered: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    def _opener(self, path: str, flags: int) -> int:
        return self._os_open(path, flags, 0o666)


class _Watched(io.FileIO):
    """A file whose writes are points."""

    def __init__(self, points: Points, path: str, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        self.points, self.path = points, path
        super().__init__(file, mode, closefd, None if isinstance(file, int) else opener)

    def write(self, content: Any) -> int:
        content = bytes(content)
        write = super().write
        done = self.points.point(
            "write", self.path, lambda: write(content), lambda: write(content[: len(content) // 2])
        )
        return int(done)


_OPEN = builtins.open


def _path_of(fd: Any) -> str:
    return os.readlink(f"/proc/self/fd/{fd if isinstance(fd, int) else fd.fileno()}")


def _refuse(number: int, path: str, part: Callable[[], Any] | None) -> NoReturn:
    if part is not None:
        part()
    raise OSError(number, os.strerror(number), path)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")
