"""The results file: one line of JSON for each finished run, all with the same settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recorded import files

from pairs.experiment import Experiment, differences
from singleshot.data.dataset import Dataset
from singleshot.errors import UserError

Line = dict[str, Any]
REQUIRED = {"experiment", "arm", "seed", "settings", "inputs", "metrics", "views", "sessions", "seconds"}


def read(path: Path) -> list[Line]:
    """The lines of a file; empty if there is no file.

    Raises:
        UserError: a line is not a result; the message gives its number.
    """
    lines = []
    for number, text in enumerate(files.texts(path), 1):
        try:
            line = json.loads(text)
            missing = REQUIRED - line.keys()
        except (ValueError, AttributeError):
            raise UserError(f"{path}:{number}: this line is not a result in JSON; correct or remove it") from None
        if missing:
            raise UserError(f"{path}:{number}: this result has no {', '.join(sorted(missing))}; remove the line")
        lines.append(line)
    return lines


def append(path: Path, line: Line) -> bool:
    """Add a line. Returns False, and keeps the old line, if the same run already has one."""
    return files.append(path, line, lambda other: all(other[key] == line[key] for key in ("experiment", "arm", "seed")))


def of(experiment: Experiment, lines: Sequence[Line]) -> dict[tuple[str, int], Line]:
    """The lines of an experiment by (arm, seed), in the order of its runs."""
    found = {(line["arm"], line["seed"]): line for line in lines if line["experiment"] == experiment.name}
    return {run: found[run] for run in experiment.runs if run in found}


def check(experiment: Experiment, lines: Sequence[Line], path: Path, inputs: Mapping[str, str] | None = None) -> None:
    """Refuse lines that were not made with these settings; `inputs` also compares data and weights.

    Raises:
        UserError: a line differs; the message names the line and the difference.
    """
    known: Mapping[str, str] | None = inputs
    seen: set[tuple[str, int]] = set()
    for number, line in enumerate(lines, 1):
        if line["experiment"] != experiment.name:
            continue
        run = (line["arm"], line["seed"])
        where = f"{path}:{number}: {experiment.name}, arm {run[0]!r}, seed {run[1]}"
        if run not in experiment.runs:
            raise UserError(f"{where}: the experiment does not have this run; choose another file with --out")
        if run in seen:
            raise UserError(f"{where}: this run has two lines; remove one of them")
        seen.add(run)
        known = known or line["inputs"]
        changed = differences(line["settings"], experiment.settings_of(*run))
        changed += [f"{key}: {line['inputs'].get(key)} -> {value}" for key, value in known.items()
                    if line["inputs"].get(key) != value]  # fmt: skip
        if changed:
            raise UserError(
                f"{where}: made with other settings, and settings are never mixed: {'; '.join(changed)}. "
                "Restore the settings, or start a new file with --out"
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
