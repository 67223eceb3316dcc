"""The lines of a run's log, as they are read: each is a line of ours, or it is told what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singleshot.errors import UserError, short
from singleshot.files import not_a_file

_LARGEST = 2**53  # more steps than any run has


@dataclass(frozen=True)
class LogLine:
    """One line of a log. `entry` counts only if `problem` is empty."""

    number: int  # the first line is 1
    content: bytes
    entry: dict[str, Any]
    problem: str

    @property
    def half(self) -> bool:
        """Whether the line has no end: it is still being written, or the process was killed meanwhile."""
        return not self.content.endswith(b"\n")


def read_log(path: Path) -> list[LogLine]:
    """All lines of a log; none if there is no file. No content raises an error.

    Raises:
        UserError: what stands there is no file.
    """
    if not path.exists():
        return []
    if (other := not_a_file(path)) is not None:  # to open a pipe would wait for ever
        raise UserError(f"{path}: this is {other}, but the log of a run is a file; remove it")
    lines = path.read_bytes().split(b"\n")
    contents = [line + b"\n" for line in lines[:-1]] + [lines[-1]] * bool(lines[-1])
    return [_read(number, content) for number, content in enumerate(contents, 1)]


def _read(number: int, content: bytes) -> LogLine:
    try:
        entry = json.loads(content)
    except (ValueError, RecursionError) as error:
        return LogLine(number, content, {}, f"expected a line of JSON ({error})")
    if not isinstance(entry, dict) or entry.get("kind") not in _FIELDS:
        return LogLine(number, content, {}, f"expected one of {', '.join(_FIELDS)}, got {short(entry)}")
    for name, right in _FIELDS[entry["kind"]].items():
        if not right(entry.get(name)):
            return LogLine(number, content, {}, f"{name} cannot be {short(entry.get(name))}")
    return LogLine(number, content, entry, "" if content.endswith(b"\n") else "the line has no end")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _losses(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(map(_finite, value.values()))


def _metrics(value: Any) -> bool:
    """Groups of metrics; a number that the data leave undefined is null."""
    return isinstance(value, dict) and all(
        isinstance(value.get(group), dict)
        and all(number is None or _finite(number) for number in value[group].values() if not isinstance(number, dict))
        for group in GROUPS
    )


GROUPS = ("coco", "voc07", "voc10")  # of the metrics of a validation; those of single classes are left out

_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "start": {"step": _whole, "total": _whole},
    "step": {"step": _whole, "epoch": _finite, "losses": _losses},
    "validation": {"step": _whole, "epoch": _finite, "metrics": _metrics},
}
