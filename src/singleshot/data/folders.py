"""Finds files by name without asking the disk for each one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from singleshot.errors import UserError
from singleshot.files import not_a_file

_Listing = tuple[dict[str, os.DirEntry[str]], dict[str, Path]]
_known: ContextVar[dict[Path, _Listing] | None] = ContextVar("known", default=None)


def files(folder: Path) -> dict[str, os.DirEntry[str]]:
    """The files of a folder by name, sorted by name; empty if the folder does not exist. Do not change the result.

    Everything that is not a folder is among them, such as a named pipe or a link to nothing: what is left out here,
    nobody misses. Ask `why_no_file` before you open one. Hidden files are left out unless they are regular.
    """
    return _listing(folder)[0]


def folders(folder: Path) -> dict[str, Path]:
    """The visible subfolders of a folder by name, sorted by name. Do not change the result."""
    return _listing(folder)[1]


def why_no_file(entry: os.DirEntry[str] | Path) -> str | None:
    """What an entry of a folder is that cannot be opened as a file, such as `a named pipe`; None for a regular file."""
    try:
        if entry.is_file():  # nearly always; an entry of a listing knows it already
            return None
        return not_a_file(os.fspath(entry))
    except FileNotFoundError:
        return "a link to a file that is not there"
    except OSError as error:
        return "a link that leads back to itself" if error.errno == errno.ELOOP else f"unreadable ({error.strerror})"


@contextmanager
def each_listed_once() -> Iterator[None]:
    """List each folder only once within this block, since several formats look at the same folders."""
    token = None if _known.get() is not None else _known.set({})
    try:
        yield
    finally:
        if token is not None:
            _known.reset(token)


def _listing(folder: Path) -> _Listing:
    known = _known.get()
    if known is not None and folder in known:
        return known[folder]
    entries = _entries(folder)
    seen = [entry for entry in entries if not entry.name.startswith(".") or _is(entry.is_file)]
    found = (
        {entry.name: entry for entry in seen if not _is(entry.is_dir)},
        {entry.name: folder / entry.name for entry in seen if _is(entry.is_dir)},
    )
    if known is not None:
        known[folder] = found
    return found


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; a link that leads in a circle is of none."""
    try:
        return kind()
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in its name
        return []
    except PermissionError as error:
        raise UserError(f"{folder}: no permission to list this folder; change its permissions") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # no folder can be there
            return []
        raise UserError(f"{folder}: cannot be listed ({error}); check the disk and the permissions") from error
