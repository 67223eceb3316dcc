"""Which images a list of files, folders and globs means, in a fixed order and under names that do not collide."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from singleshot.data.images import IMAGE_SUFFIXES
from singleshot.errors import UserError, did_you_mean, in_brackets

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Source:
    """One image file that the user meant."""

    path: Path  # as it is reached from the argument, not resolved
    name: str  # relative, with "/": the file's name, or its path inside the folder or glob that was given


def expand(sources: str | Path | Sequence[str | Path], *, without: Path | None = None) -> list[Source]:
    """List the image files of files, folders (searched to the bottom) and globs, in the order given.

    Within a folder or a glob the order is by path. A folder's hidden files and files that are no images by their suffix
    are passed over; a file that is named is always taken. Files under `without` (the output folder) are passed over, so
    that a second run does not find the pictures that the first one drew.

    A name is the file's own, or its path inside the folder or glob. Where two different files would share one, every
    name becomes the path below the folder that all the files have in common. A file that is given twice comes twice.

    Raises UserError for an address, a missing file, a folder or glob without images, a video, or no source at all.
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
    if not text or "\0" in text:
        raise UserError(f"{text!r} is not a path; give an image file, a folder or a glob")
    if _URL.match(text):
        raise UserError(f"{text} is an address, and nothing is downloaded here; save the image and give the file")
    path = Path(text)
    try:
        if path.is_dir():
            return _folder(path, without)
        if path.exists():
            return [_file(path)]
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UserError(f"{text} cannot be opened: {error.strerror or error}") from error
    base, rest = _fixed_part(text)
    if not rest:
        raise UserError(f"{text} does not exist{_near(path)}; give an image file, a folder or a glob")
    return _glob(text, base, rest, without)


def _file(path: Path) -> Source:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise UserError(f"{path} is a video by its suffix, and only images are read; extract its frames first")
    return Source(path, path.name)


def _folder(folder: Path, without: Path | None) -> list[Source]:
    found = list(_images(folder, without))
    if not found:
        raise UserError(f"{folder} holds no images; searched to the bottom for files that end in {_suffixes()}")
    return [Source(path, path.relative_to(folder).as_posix()) for path in found]


def _images(folder: Path, without: Path | None) -> Iterator[Path]:
    """Walk in order of path parts, through links to folders too, but never in a circle."""
    skipped = None if without is None else os.path.realpath(without)

    def walk(here: Path, above: frozenset[str]) -> Iterator[Path]:
        real = os.path.realpath(here)
        if real == skipped or real in above:
            return
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"the folder {here} cannot be read: {error.strerror or error}") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from walk(here / entry.name, above | {real})
            elif _is_image(entry.name):
                yield here / entry.name

    # The output folder is passed over below a source, but a source that is itself the output folder is meant.
    if os.path.realpath(folder) == skipped:
        skipped = None
    yield from walk(folder, frozenset())


def _glob(pattern: str, base: str, rest: str, without: Path | None) -> list[Source]:
    """The images that match; `base` and `rest` are the pattern's fixed part and what is behind it."""
    matches = sorted(glob.glob(os.path.join(glob.escape(base), rest), recursive=True))
    if not matches:
        raise UserError(f"nothing matches {pattern}; check the folder and the pattern (** crosses folders)")
    skipped = None if without is None else os.path.realpath(without)
    found: dict[Path, None] = {}  # ordered, without repeats: ** also matches what is below a matched folder
    for match in map(Path, matches):
        if skipped is not None and _below(match, skipped):
            continue
        inside: Iterable[Path] = (
            _images(match, without) if match.is_dir() else (match,) if _is_image(match.name) else ()
        )
        found.update(dict.fromkeys(inside))
    if not found:
        raise UserError(f"{pattern} matches {len(matches)} files or folders, but no images: none ends in {_suffixes()}")
    return [Source(path, path.relative_to(base).as_posix()) for path in found]


def _fixed_part(pattern: str) -> tuple[str, str]:
    """Split a glob into the folders that exist as they are written (names with brackets too) and the rest.

    The rest is "" where nothing is left to be matched.
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
    # Names that differ in case alone are one file on some systems.
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
