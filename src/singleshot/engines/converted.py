"""A weights file as the file of another engine: converted once, kept in the cache, made anew if it is broken."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from singleshot.cache import cache_folder, switched_off
from singleshot.errors import UserError
from singleshot.files import write_atomically
from singleshot.paths import to_path
from singleshot.version import __version__

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector
    from singleshot.engines.engine import Engine

_log = logging.getLogger(__name__)

PURPOSE = "engines"
"""The folder within the cache."""

_SUMS = "sums.json"  # the SHA-256 of each file of an entry
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")  # those whose version may change a graph


@contextmanager
def converted(path: str | Path, engine: Engine, builder: Callable[..., Detector] | None) -> Iterator[Path]:
    """The file of a detector for an engine. It is only sure to be there within the block.

    An entry of the cache is found by the content of the weights file and of the code that builds the detector, the
    engine, and the versions of this package and of those that convert. An entry appears as a whole, so any number of
    processes may look for it and make it at once. One whose content is not what was written is made again.

    Raises `UserError` for weights that cannot be loaded, a missing package, and a folder that cannot be written.
    """
    note = "%s is converted for %s, which may take a minute; "
    if switched_off() or builder is not None:  # the code of a user's own builder is not known here
        _log.warning(note + "the result is not kept", path, engine.TITLE)
        with TemporaryDirectory(ignore_cleanup_errors=True) as place:
            yield _written(path, engine, builder, Path(place))
        return
    entry = cache_folder(PURPOSE) / _key(to_path(path), engine)
    if not _is_whole(entry):
        _log.warning(note + "the result is kept in the cache", path, engine.TITLE)
        try:
            _make(path, engine, entry)
        except OSError as error:
            raise UserError(
                f"{entry}: cannot be written ({error.strerror or error}); set SINGLESHOT_CACHE to another folder, or "
                "to nothing to keep nothing"
            ) from error
    yield entry / f"model{engine.SUFFIX}"


def _key(path: Path, engine: Engine) -> str:
    versions = {"singleshot": __version__}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    told = json.dumps([engine.NAME, versions, _code()], sort_keys=True)
    return f"{_sum(path)[:32]}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _code() -> str:
    """The state of this package's own code: it may change between two releases."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        stat = path.stat()
        found.update(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(entry: Path) -> bool:
    """Whether an entry has what was written: a disk that was full, or a user, may have changed it."""
    try:
        sums: Any = json.loads((entry / _SUMS).read_text(encoding="utf-8"))
        return bool(sums) and all(_sum(entry / Path(name).name) == value for name, value in sums.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _make(path: str | Path, engine: Engine, entry: Path) -> None:
    """Write an entry beside its place, and move it there as a whole. Another process may have been faster."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    place = entry.with_name(f".{entry.name}.{os.urandom(4).hex()}")
    place.mkdir()
    try:
        _written(path, engine, None, place)
        sums = {one.name: _sum(one) for one in sorted(place.iterdir())}
        write_atomically(place / _SUMS, json.dumps(sums).encode())
        for _ in range(3):
            try:
                os.rename(place, entry)
            except OSError:
                if _is_whole(entry):
                    return
                with suppress(OSError):  # a broken one, which another process may remove too
                    old = place.with_name(f"{place.name}.old")
                    os.rename(entry, old)
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            else:
                return
        raise OSError("another file is in its place")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _written(path: str | Path, engine: Engine, builder: Callable[..., Detector] | None, folder: Path) -> Path:
    from singleshot.engines.graph import exportable
    from singleshot.weights import checkpoint

    detector = checkpoint.load(path, builder=builder)
    file = folder / f"model{engine.SUFFIX}"
    engine.export(exportable(detector), file)
    return file
