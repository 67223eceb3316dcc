"""Formats that are recognised but not read, for a message that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

from singleshot.data.folders import files, folders, why_no_file

_YOLO = "Convert them to COCO files: python examples/yolo_to_coco.py FOLDER (in the sources of this project)"
_YOLO_LINE = re.compile(rb"\d+( +-?[\d.]+(e-?\d+)?){4,}\s*$")


def advice(path: Path) -> str | None:
    """What a path without a dataset seems to hold, and what to do with it; None if nothing is recognised."""
    if not path.is_dir():
        yolo = path.suffix.lower() == ".yaml"
        return f"This file may describe a folder with YOLO labels. {_YOLO}." if yolo else None
    labels = _yolo_labels(path)
    return None if labels is None else f"{labels} looks like a file of YOLO labels, which are not read. {_YOLO}."


def _yolo_labels(root: Path) -> Path | None:
    """A text file with lines such as `0 0.5 0.5 0.1 0.2`, in the folder or at most two levels below it."""
    inner = list(folders(root).values())
    for place in (root, *inner, *(folder for above in inner for folder in folders(above).values())):
        entries = files(place).items()
        texts = [place / name for name, entry in entries if name.endswith(".txt") and why_no_file(entry) is None]
        for text in texts[:3]:  # the first may be a list of classes
            with text.open("rb") as file:
                if _YOLO_LINE.match(file.readline(4096)):
                    return text
    return None
