"""Paths at the door: text that names a file or a folder, or a clear error."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from singleshot.errors import UserError, short, shown


def to_path(path: str | os.PathLike[str]) -> Path:
    """The path that a user, a recipe or a file gives.

    Raises:
        UserError: what is no text and no path; text that the system takes for no path, that is too long for one, or
            nothing at all. (`Path("")` is the current folder; a variable of a shell that was never set is rarely meant
            for it.)
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"expected the path of a file or folder, got {short(path)}")
    if not os.fspath(path):
        raise UserError("a path is empty: give the name of a file or folder (the current folder is .)")
    if (found := no_name(os.fspath(path))) is not None:
        raise UserError(f"{shown(path)}: no file or folder has such a name: it holds {found}; correct the path")
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(
                f"{shown(path)}: this is too long for the name of a file or folder; correct the path"
            ) from None
    return Path(path)


def no_name(text: str) -> str | None:
    """What keeps this text from being a name, if anything does: NUL, or a lone surrogate that stands for no byte."""
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "half of a character"
    return None
