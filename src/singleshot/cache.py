"""The one folder for files that can be fetched or made again. Nothing is lost when a user removes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from singleshot.errors import UserError
from singleshot.paths import to_path

VARIABLE = "SINGLESHOT_CACHE"


def cache_folder(purpose: str) -> Path:
    """The folder for files of one purpose, such as `weights`. It is not made here.

    It lies in the folder that `SINGLESHOT_CACHE` names, or where the system keeps caches: `~/.cache/singleshot` (or in
    `XDG_CACHE_HOME`), `~/Library/Caches/singleshot` on macOS, `%LOCALAPPDATA%/singleshot/cache` on Windows.

    Raises:
        UserError: the variable holds no path, or there is no home folder.
    """
    return _root() / purpose


def switched_off() -> bool:
    """Whether the user wants nothing to be kept that can be made again: `SINGLESHOT_CACHE` is there, and empty.

    What is fetched by name is kept all the same: it needs a place.
    """
    return os.environ.get(VARIABLE) == ""


def _root() -> Path:
    if given := os.environ.get(VARIABLE):
        return to_path(os.path.expanduser(given)).absolute()
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local or Path.home() / "AppData" / "Local") / "singleshot" / "cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "singleshot"
        given = os.environ.get("XDG_CACHE_HOME", "")
        # Its specification says that a relative path is to be ignored.
        return (to_path(given) if os.path.isabs(given) else Path.home() / ".cache") / "singleshot"
    except RuntimeError:
        raise UserError(f"there is no home folder to keep files in: set {VARIABLE} to a folder") from None
