"""Places the labels of boxes: beside their box, inside the picture, and not over each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ImageFont

from singleshot.errors import escaped
from singleshot.inference.fonts import font_for

Box = tuple[int, int, int, int]  # xyxy in whole pixels; the last row and column belong to the box

_SMALLEST = 8  # font size in pixels; smaller letters cannot be read
_LONGEST = 300  # letters of a name that are looked at: more fit into no picture, and measuring them takes long


@dataclass(frozen=True)
class Label:
    """A text with its font and measured size."""

    text: str
    font: ImageFont.FreeTypeFont
    width: int  # of the whole label, with its margin
    height: int
    margin: int


def fit(name: str, score: str, number: int, *, size: int, room: tuple[int, int]) -> Label | None:
    """The longest text that fits into `room`, (width, height) in pixels; None if nothing fits.

    First the letters get smaller, then the score is dropped, then the end of the name. A name that no font of this
    machine can write is replaced by the number of the class. What cannot be seen is escaped, as in messages.
    """
    name = re.sub(" +", " ", escaped(name[:_LONGEST].strip()))[:_LONGEST]
    if not name or font_for(name, size) is None:
        name = f"#{number}"
    for text in (f"{name} {score}".strip(), name):
        for smaller in dict.fromkeys((size, *range(min(size, 14), _SMALLEST - 1, -1))):
            label = measure(text, smaller)
            if label is not None and label.width <= room[0] and label.height <= room[1]:
                return label
    for end in range(len(name) - 1, 0, -1):
        label = measure(name[:end].rstrip() + "…", _SMALLEST)
        if label is not None and label.width <= room[0] and label.height <= room[1]:
            return label
    return None


def measure(text: str, size: int) -> Label | None:
    """A label of one line, whose height depends only on font and size. None if no font has the letters."""
    font = font_for(text, size)
    if font is None:
        return None
    ascent, descent = font.getmetrics()
    margin = max(1, round(size / 6))
    return Label(text, font, int(np.ceil(font.getlength(text))) + 2 * margin, ascent + descent, margin)


def place(boxes: list[Box], labels: list[Label | None], *, room: tuple[int, int]) -> list[tuple[int, int]]:
    """The top left corner of each label, best box first: the first free place, else the one that is least covered.

    `room` is (width, height) of the picture. The places tried are at the box's corners, first outside, then inside.
    After them come places along its left and right side, in growing distance from the corners.
    """
    taken = np.zeros((0, 4))
    corners: list[tuple[int, int]] = []
    for box, label in zip(boxes, labels, strict=True):
        if label is None:
            corners.append((0, 0))
            continue
        best: tuple[float, tuple[int, int]] | None = None
        for x, y in _candidates(box, label, room[1]):
            x = min(max(x, 0), room[0] - label.width)
            y = min(max(y, 0), room[1] - label.height)
            covered = _covered((x, y, x + label.width, y + label.height), taken)
            if best is None or covered < best[0]:
                best = (covered, (x, y))
            if covered == 0:
                break
        assert best is not None
        x, y = best[1]
        taken = np.concatenate([taken, [[x, y, x + label.width, y + label.height]]])
        corners.append((x, y))
    return corners


def _candidates(box: Box, label: Label, height: int) -> Iterator[tuple[int, int]]:
    left, top, right, bottom = box[0], box[1], box[2] + 1 - label.width, box[3] + 1
    above, inside = top - label.height, bottom - label.height
    if above >= 0:
        yield left, above
    if bottom + label.height <= height:
        yield left, bottom
    yield from ((left, top), (right, top), (left, inside), (right, inside))
    if above >= 0:
        yield right, above
    if bottom + label.height <= height:
        yield right, bottom
    for step in range(1, 5):
        for y in (top + step * label.height, above - step * label.height):
            yield left, y
            yield right, y


def _covered(box: Box, taken: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """The number of pixels of a box that others cover."""
    width = np.minimum(taken[:, 2], box[2]) - np.maximum(taken[:, 0], box[0])
    height = np.minimum(taken[:, 3], box[3]) - np.maximum(taken[:, 1], box[1])
    return float((width.clip(0) * height.clip(0)).sum())
