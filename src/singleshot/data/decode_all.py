"""Decodes every image of a dataset once, and remembers which ones could be read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
from PIL import Image

from singleshot.data.deep import DeepRange, DeepValues
from singleshot.data.images import Decoded, decode
from singleshot.errors import UserError
from singleshot.files import write_atomically

Entry = tuple[int, int, Decoded]  # time of change in ns, bytes, what was found

_VERSION = 2  # of the file; a change of the reader that could refuse other images makes it the next


def decode_all(
    paths: Sequence[Path],
    *,
    memory: Path | None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Path, Decoded | str]:
    """Decode images fully. Returns what each path holds, or a text that says what is wrong with it.

    `memory` is a JSON file that lists the images that could be read before (None: no such file). They are not opened
    again while their time and size on disk are the same. The file only saves time: if it cannot be read or written,
    no error is raised. `progress(done, all)` is called after each image.
    """
    known = {} if memory is None else _load(memory)
    sound: dict[str, Entry] = {}
    wanted = list(dict.fromkeys(paths))

    def examine(path: Path) -> Decoded | str:
        try:
            changed, length = _state(path)
            key = str(path.absolute())
            entry = known.get(key)
            if entry is None or entry[:2] != (changed, length) or _too_large(entry):
                entry = (changed, length, decode(path))
            sound[key] = entry
            return entry[2]
        except UserError as error:
            return str(error)

    found: dict[Path, Decoded | str] = {}
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        for path, result in zip(wanted, pool.map(examine, wanted), strict=True):
            found[path] = result
            if progress is not None:
                progress(len(found), len(wanted))
    finally:
        pool.shutdown(cancel_futures=True)
    if memory is not None and any(known.get(key) != entry for key, entry in sound.items()):
        _save(memory, known | sound)
    return found


def memory_file(root: Path) -> Path | None:
    """The JSON file for the images of a dataset, in the user's cache folder. None if there is no home folder."""
    try:
        if base := os.environ.get("XDG_CACHE_HOME"):
            folder = Path(base)
        elif sys.platform == "darwin":
            folder = Path("~/Library/Caches").expanduser()
        elif sys.platform == "win32":
            folder = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser()
        else:
            folder = Path("~/.cache").expanduser()
    except RuntimeError:
        return None
    name = hashlib.sha256(str(root.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return folder / "singleshot" / "images" / f"{name}.json"


def _state(path: Path) -> tuple[int, int]:
    """When the file was changed, and its length; of a path that cannot be looked at no reader gets further."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return state.st_mtime_ns, state.st_size


def _too_large(entry: Entry) -> bool:
    height, width = entry[2].size
    return Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS


def _load(path: Path) -> dict[str, Entry]:
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != _VERSION or content["pillow"] != PIL.__version__:
            return {}
        return {str(key): _entry(*values) for key, values in content["images"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _entry(changed: int, length: int, height: int, width: int, *deep: float) -> Entry:
    values = None
    if deep:
        least, largest, low, high, colour = map(float, deep)
        values = DeepValues(least, largest, DeepRange(low, high), bool(colour))
    return int(changed), int(length), Decoded((int(height), int(width)), values)


def _plain(entry: Entry) -> list[float]:
    changed, length, found = entry
    deep = found.deep
    values = [] if deep is None else [deep.least, deep.largest, *deep.usual.to_json(), deep.colour]
    return [changed, length, *found.size, *values]


def _save(path: Path, images: dict[str, Entry]) -> None:
    content = {
        "version": _VERSION,
        "pillow": PIL.__version__,
        "images": {key: _plain(entry) for key, entry in images.items()},
    }
    with contextlib.suppress(OSError, UnicodeEncodeError):
        write_atomically(path, json.dumps(content).encode())
