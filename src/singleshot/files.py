"""Write files completely or not at all, and tell files from what is none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PREFIX = 40  # letters of a file's name in that of its temporary file, which must not be too long for a disk


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder, and move it to its place when all of it is on the disk.

    After a crash or with a full disk the old file is still there. Raises the `OSError` of the failure.
    """
    write_together([(path, content)])


def write_together(contents: Iterable[tuple[Path, bytes]]) -> list[Path]:
    """Write files that belong together: none is moved to its place before all are on the disk. Returns their paths.

    With a full disk all old files are still there. Only a process that is killed while it moves them can leave some old
    and some new ones. Raises the `OSError` of the failure.
    """
    waiting: list[tuple[str, Path]] = []
    path = Path()
    try:
        for path, content in contents:
            waiting.append((_beside(path, content), path))
        written = [path for _, path in waiting]
        while waiting:
            name, path = waiting[0]
            os.replace(name, path)
            del waiting[0]
    except BaseException as error:
        for name, _ in waiting:
            with suppress(OSError):  # the first error counts
                os.unlink(name)
        if isinstance(error, OSError) and error.errno is not None:  # else a name would hide its message
            error.filename, error.filename2 = os.fspath(path), None  # not the temporary file, which nobody knows
        raise
    return written


def _beside(path: Path, content: bytes) -> str:
    """Write a temporary file in the folder of a path; returns its name when all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = os.fspath(path.parent / f".{path.name[:_PREFIX]}.{os.urandom(4).hex()}")
    # Not `tempfile`: its files are private, and to learn the permissions of others one must change the process's mask.
    try:
        with open(name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise  # that file is another's
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return name


def not_a_file(path: str | Path) -> str | None:
    """What a path is that is no regular file, such as `a folder` or `a named pipe`; None if it is a regular file.

    Ask this before you open what a user names or a folder holds: opening a pipe waits for its writer, perhaps for ever.
    Links are followed. Raises the `OSError` of a path that cannot be looked at, and `ValueError` for one with a NUL.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return None
    known = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for test, name in known.items() if test(mode)), "no regular file")
