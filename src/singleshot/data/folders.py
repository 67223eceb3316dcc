"""Finding files by name without asking the disk for each one."""

from __future__ import annotations

import os
from pathlib import Path

from singleshot.errors import UserError


def files(folder: Path) -> dict[str, os.DirEntry[str]]:
    """The files of a folder by name, in order of names; nothing where there is no such folder."""
    return {entry.name: entry for entry in _entries(folder) if entry.is_file()}


def folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by name, in order of names, without hidden ones."""
    found = (entry for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))
    return {entry.name: folder / entry.name for entry in found}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise UserError(f"{folder}: no permission to list this folder") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error})") from error
