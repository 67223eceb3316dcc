"""Detections as lines of JSON, one for each image, written as soon as the image is ready."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from singleshot.errors import UserError, shown
from singleshot.inference.results import to_json
from singleshot.prediction import Prediction

STDOUT = "-"


@contextmanager
def writer(target: str | None, *, overwrite: bool = False) -> Iterator[Callable[[Prediction], None] | None]:
    """A function that writes one line; None without a target. The target is a file, or "-" for stdout.

    Each line is written whole and at once, so after Ctrl-C or an error there are only whole lines, those of the images
    that were done. An existing file is refused unless `overwrite` is set.

    Raises UserError for a file that exists, or cannot be written.
    """
    if target is None:
        yield None
    elif target == STDOUT:
        yield lambda prediction: _write(sys.stdout, prediction)
    else:
        path = Path(target)
        if path.is_dir():
            raise UserError(f"{shown(path)} is a folder, expected a file for the lines; add its name")
        try:
            file = path.open("w" if overwrite else "x", encoding="utf-8")
        except FileExistsError:
            raise UserError(f"{shown(path)} exists already; choose another name, or give --overwrite") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{shown(path)} cannot be written: {reason}; choose another file") from error
        with file:
            yield lambda prediction: _into(file, path, prediction)


def line(prediction: Prediction) -> str:
    """The entry of an image in `to_json` as one line; letters beyond ASCII are escaped. NaN becomes null."""
    entry = to_json([prediction])[0]
    try:
        return json.dumps(entry, allow_nan=False) + "\n"
    except ValueError:
        for one in entry["detections"]:
            one["box"] = [value if math.isfinite(value) else None for value in one["box"]]
            one["score"] = one["score"] if math.isfinite(one["score"]) else None
        return json.dumps(entry, allow_nan=False) + "\n"


def _into(file: TextIO, path: Path, prediction: Prediction) -> None:
    try:
        _write(file, prediction)
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be written: {error.strerror or error}; free some space") from error


def _write(file: TextIO, prediction: Prediction) -> None:
    file.write(line(prediction))
    file.flush()
