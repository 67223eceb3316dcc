"""The file of results: one line of JSON per finished run, of one set of settings only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pairs.experiment import Experiment, differences
from singleshot.data.dataset import Dataset
from singleshot.errors import UserError

Line = dict[str, Any]
REQUIRED = {"experiment", "arm", "seed", "settings", "inputs", "metrics", "views", "sessions", "seconds"}


def read(path: Path) -> list[Line]:
    """The lines of a file; none where there is no file.

    Raises:
        UserError: a line that is no result, by its number.
    """
    lines = []
    for number, text in enumerate(_texts(path), 1):
        try:
            line = json.loads(text)
            missing = REQUIRED - line.keys()
        except (ValueError, AttributeError):
            raise UserError(f"{path}:{number}: this is no line of JSON with a result; mend or remove it") from None
        if missing:
            raise UserError(f"{path}:{number}: this result has no {', '.join(sorted(missing))}; remove the line")
        lines.append(line)
    return lines


def _texts(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open() as file, locked(file, shared=True):  # not while a line is being written
        return file.read().splitlines()


def append(path: Path, line: Line) -> bool:
    """One more line, on the disk when this returns; False where the same run has a line already, and that one stays.

    Processes that append to one file take turns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file, locked(file):
        file.seek(0)
        before = file.read()
        if any(_is_of_run(other, line) for other in before.splitlines()):
            return False
        separated = b"" if not before or before.endswith(b"\n") else b"\n"
        file.write(separated + (json.dumps(line) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    return True


def _is_of_run(text: bytes, line: Line) -> bool:
    """A damaged line is of no run: `read` refuses it, but a result that took hours is not lost for it."""
    try:
        other = json.loads(text)
        return all(other[key] == line[key] for key in ("experiment", "arm", "seed"))
    except (ValueError, TypeError, KeyError):
        return False


@contextlib.contextmanager
def locked(file: IO[Any], *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Inside, no other process holds this lock, or (`shared`) only others that share it.

    Does nothing where the system or the disk has no such locks.

    Raises:
        BlockingIOError: another process holds it, and `wait` is off.
    """
    with contextlib.suppress(ImportError):
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network disks
    yield  # closing the file gives the lock back


def of(experiment: Experiment, lines: Sequence[Line]) -> dict[tuple[str, int], Line]:
    """The lines of an experiment by (arm, seed), in the order of its runs."""
    found = {(line["arm"], line["seed"]): line for line in lines if line["experiment"] == experiment.name}
    return {run: found[run] for run in experiment.runs if run in found}


def check(experiment: Experiment, lines: Sequence[Line], path: Path, inputs: Mapping[str, str] | None = None) -> None:
    """Refuse lines that were not made by these settings; `inputs` also compares data and weights.

    Raises:
        UserError: which line, and what differs.
    """
    known: Mapping[str, str] | None = inputs
    seen: set[tuple[str, int]] = set()
    for number, line in enumerate(lines, 1):
        if line["experiment"] != experiment.name:
            continue
        run = (line["arm"], line["seed"])
        where = f"{path}:{number}: {experiment.name}, arm {run[0]!r}, seed {run[1]}"
        if run not in experiment.runs:
            raise UserError(f"{where}: the experiment has no such run; choose another file with --out")
        if run in seen:
            raise UserError(f"{where}: this run stands here twice; remove one of the lines")
        seen.add(run)
        known = known or line["inputs"]
        changed = differences(line["settings"], experiment.settings_of(*run))
        changed += [f"{key}: {line['inputs'].get(key)} -> {value}" for key, value in known.items()
                    if line["inputs"].get(key) != value]  # fmt: skip
        if changed:
            raise UserError(
                f"{where}: made with other settings, and these are never mixed: {'; '.join(changed)}. "
                "Put the settings back, or begin a new file with --out"
            )


def fingerprint(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """One word for settings, data and weights."""
    return _digest(json.dumps([settings, inputs], sort_keys=True).encode())


def data_fingerprint(dataset: Dataset) -> str:
    """One word for the names of the images, their boxes and the classes."""
    parts = [repr((dataset.class_names, len(dataset))).encode()]
    for record in dataset.records:
        parts += [record.name.encode(), record.boxes.tobytes(), record.labels.tobytes(), record.difficult.tobytes()]
    return _digest(b"\0".join(parts))


def file_fingerprint(path: Path) -> str:
    """One word for the content of a file."""
    try:
        return _digest(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the weights with --weights") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
