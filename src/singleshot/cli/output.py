"""The output of a verb: text for people, or one JSON document for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from singleshot.text_table import table as table


@dataclass(frozen=True)
class Result:
    """The outcome of a verb, in both forms."""

    document: Any  # plain data for --json
    text: str
    fault: str | None = None  # if the verb found something wrong: what the user has to correct; exit code 2
    failure: str | None = None  # if what was asked for could not be made, without a mistake of the user; exit code 1
    silent: bool = False  # several processes worked together, and another one prints the result
    interrupted: bool = False  # Ctrl-C ended the work early, and this is what there was so far; exit code 130


def write(result: Result, *, as_json: bool, ascii: bool = False) -> str:
    """The requested form of the result. JSON has escapes for what cannot be seen; with `ascii` for other letters too.

    JSON has no NaN and no infinity: they become null.
    """
    if not as_json:
        return result.text
    text = json.dumps(_plain(result.document), indent=2, ensure_ascii=ascii, allow_nan=False)
    # A terminal obeys some characters that JSON allows as they are: 0x7f, marks of direction.
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, tensors, and their single numbers
        return _plain(value.tolist())
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not plain data: {value!r}")
