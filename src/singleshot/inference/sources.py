"""Finds the images of a list of files, folders and globs, in a fixed order and with unique names."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from singleshot.data.images import IMAGE_SUFFIXES
from singleshot.errors import UserError, did_you_mean, in_brackets
from singleshot.paths import to_path

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Source:
    """One image file from the user's list."""

    path: Path  # as reached from the argument; links are not resolved
    name: str  # relative, with "/": the file's name, or its path inside the given folder or glob


def expand(sources: str | Path | Sequence[str | Path], *, without: Path | None = None) -> list[Source]:
    """List the image files of files, folders (with all subfolders) and globs, in the given order.

    Within a folder or a glob the order is by path, and each real folder counts once, also if several links lead to it.
    In folders, hidden files and files without an image suffix are skipped; a file that is named directly is always
    taken. Files under `without` (the output folder) are skipped, so that a second run does not find the pictures that
    the first one drew.

    A name is the file's own name, or its path inside the folder or glob. If two different files had the same name,
    every name becomes the path below the common folder of all files. A file that is given twice is listed twice.

    Raises UserError for a web address, a missing file, a folder or glob without images, a video, or no source at all.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not given:
        raise UserError("no source was given; give image files, folders or globs")
    found: list[Source] = []
    for source in given:
        found += _expand_one(source, without)
    return _distinct(found)


def _expand_one(given: str | Path, without: Path | None) -> list[Source]:
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"a source must be the path of a file or folder, or a glob, got {type(given).__name__}")
    text = os.path.expanduser(os.fspath(given))
    if not text:
        raise UserError(f"{text!r} is not a path; give an image file, a folder or a glob")
    if _URL.match(text):
        raise UserError(f"{text} is a web address, and nothing is downloaded here; save the image and give its file")
    path = to_path(text)
    try:
        if path.is_dir():
            return _folder(path, without)
        if path.exists():
            return [_file(path)]
    except OSError as error:  # a name that is too long, or a folder without permission
        raise UserError(f"{text} cannot be opened: {error.strerror or error}; check path and permissions") from error
    base, rest = _fixed_part(text)
    if not rest:
        raise UserError(f"{text} does not exist{_near(path)}; give an image file, a folder or a glob")
    return _glob(text, base, rest, without)


def _file(path: Path) -> Source:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise UserError(f"{path} has the suffix of a video, and only images are read; extract its frames first")
    return Source(path, path.name)


def _folder(folder: Path, without: Path | None) -> list[Source]:
    found = _images(folder, without)
    if not found:
        raise UserError(f"{folder} and its subfolders hold no images; expected files that end in {_suffixes()}")
    return [Source(path, path.relative_to(folder).as_posix()) for path in found]


def _images(folder: Path, without: Path | None) -> list[Path]:
    """The images in a folder and below it, in order of path parts."""
    # The output folder is skipped below a source. But if a source is itself the output folder, it is read.
    skipped = None if without is None else os.path.realpath(without)
    return sorted(chain(*_walk([folder], skipped if os.path.realpath(folder) != skipped else None).values()))


def _walk(tops: Iterable[Path], skipped: str | None = None) -> dict[Path, list[Path]]:
    """Folders, and all below them, each with its images. The folder whose real path is `skipped` is left out.

    Links to folders are followed, and each real folder is visited once: folders with links to each other have more
    paths than anybody can walk. It counts under a path without links if there is one, else under the first link.
    """
    found: dict[Path, list[Path]] = {}
    seen = set() if skipped is None else {skipped}
    links_last = sorted(tops, key=Path.is_symlink)
    for top in links_last:  # it grows
        waiting = [top]
        while waiting:
            here = waiting.pop()
            real = os.path.realpath(here)
            if real in seen:
                continue
            seen.add(real)
            inner, others = _divided(_visible(here))
            found[here] = [path for path in others if _is_image(path.name)]
            waiting += [path for path in reversed(inner) if not path.is_symlink()]
            links_last += [path for path in inner if path.is_symlink()]
    return found


def _divided(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The folders, and what is none."""
    parts: tuple[list[Path], list[Path]] = [], []
    for path in paths:
        parts[not path.is_dir()].append(path)
    return parts


def _visible(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror or error}; check permissions") from error


def _matching(base: Path, parts: Sequence[str]) -> list[Path]:
    """What matches the parts of a glob below a folder. A last ** gives folders alone, which hold the files."""
    found = [base]
    for part in parts:
        if part == "**":
            found = list(_walk(one for one in found if one.is_dir()))
        else:
            found = [Path(one) for each in found for one in glob.glob(os.path.join(glob.escape(str(each)), part))]
        found = list(dict.fromkeys(found))
    return sorted(found)


def _glob(pattern: str, base: str, rest: str, without: Path | None) -> list[Source]:
    """The images that match. `base` is the fixed part of the pattern, `rest` what follows."""
    matches = _matching(Path(base), Path(rest).parts)
    if not matches:
        raise UserError(f"nothing matches {pattern}; check the folder and the pattern (** matches subfolders too)")
    skipped = None if without is None else os.path.realpath(without)
    folders, files = _divided(match for match in matches if skipped is None or not _below(match, skipped))
    images = chain(*_walk(folders, skipped).values(), (match for match in files if _is_image(match.name)))
    found = sorted(set(images))  # ** also matches files below a matched folder
    if not found:
        raise UserError(f"{pattern} matches {len(matches)} files or folders, but no images: none ends in {_suffixes()}")
    return [Source(path, path.relative_to(base).as_posix()) for path in found]


def _fixed_part(pattern: str) -> tuple[str, str]:
    """Split a glob into the folders that exist under exactly this name (also with brackets) and the rest.

    The rest is "" if nothing is left to match.
    """
    parts = Path(pattern).parts
    base = Path()
    for i, part in enumerate(parts):
        if glob.has_magic(part) and not (base / part).is_dir():
            return str(base), os.path.join(*parts[i:])
        base /= part
    return str(base), ""


def _distinct(sources: list[Source]) -> list[Source]:
    files = {os.path.abspath(source.path): source.name for source in sources}
    # On some systems, names that differ only in case are the same file.
    if max(Counter(name.casefold() for name in files.values()).values()) == 1:
        return sources
    try:
        common = Path(os.path.commonpath([os.path.dirname(file) for file in files]))
        return [Source(s.path, Path(os.path.abspath(s.path)).relative_to(common).as_posix()) for s in sources]
    except ValueError:  # different drives
        return [
            Source(s.path, str(PurePosixPath(*(part.strip(":\\/") for part in Path(os.path.abspath(s.path)).parts))))
            for s in sources
        ]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _below(path: Path, folder: str) -> bool:
    real = os.path.realpath(path)
    return real == folder or real.startswith(folder + os.sep)


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _near(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f" (nor does the folder {path.parent})"
    return in_brackets(did_you_mean(path.name, names, number=1, show=lambda name: str(path.parent / name)))
