"""Places the labels of boxes: beside their box, inside the picture, and not over each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import bidirectional

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from singleshot.errors import escaped
from singleshot.inference.fonts import font_for

Box = tuple[int, int, int, int]  # xyxy in whole pixels; the last row and column belong to the box

Integers = NDArray[np.int64]

_NEVER = np.iinfo(np.int64).max
_SMALLEST = 8  # font size in pixels; smaller letters cannot be read
_LONGEST = 300  # letters of a name that are looked at: more fit into no picture, and measuring them takes long


@dataclass(frozen=True)
class Label:
    """A text with its font and measured size, and the parts that are drawn one after the other."""

    text: str
    font: ImageFont.FreeTypeFont
    width: int  # of the whole label, with its margin
    height: int
    margin: int
    parts: tuple[str, ...]  # the name with a space, and the score: few of both, so each is drawn only once


def fit(name: str, score: str, number: int, *, size: int, room: tuple[int, int]) -> Label | None:
    """The longest text that fits into `room`, (width, height) in pixels; None if nothing fits.

    First the letters get smaller, then the score is dropped, then the end of the name. A name that no font of this
    machine can write is replaced by the number of the class. What cannot be seen is escaped, as in messages.
    """
    name = _writable(name, number, size)
    for parts in ((name, score), (name,)) if score else ((name,),):
        for smaller in dict.fromkeys((size, *range(min(size, 14), _SMALLEST - 1, -1))):
            label = measure(*parts, size=smaller)
            if label is not None and label.width <= room[0] and label.height <= room[1]:
                return label
    for end in range(len(name) - 1, 0, -1):
        label = measure(name[:end].rstrip() + "…", size=_SMALLEST)
        if label is not None and label.width <= room[0] and label.height <= room[1]:
            return label
    return None


@lru_cache(maxsize=1024)
def _writable(name: str, number: int, size: int) -> str:
    name = re.sub(" +", " ", escaped(name[:_LONGEST].strip()))[:_LONGEST]
    return name if name and font_for(name, size) is not None else f"#{number}"


@lru_cache(maxsize=4096)
def measure(name: str, score: str = "", *, size: int) -> Label | None:
    """A label of one line, whose height depends only on font and size. None if no font has the letters."""
    text = f"{name} {score}" if score else name
    font = font_for(text, size)
    if font is None:
        return None
    ascent, descent = font.getmetrics()
    margin = max(1, round(size / 6))
    # Scripts from right to left put the score elsewhere.
    whole = not score or any(bidirectional(letter) in ("R", "AL") for letter in name)
    parts = (text,) if whole else (f"{name} ", score)
    width = sum(text_length(part, font) for part in parts)
    return Label(text, font, int(np.ceil(width)) + 2 * margin, ascent + descent, margin, parts)


@lru_cache(maxsize=4096)
def text_length(text: str, font: ImageFont.FreeTypeFont) -> float:
    """How far the text moves the pen, in pixels."""
    return float(font.getlength(text))


def place(boxes: list[Box], labels: list[Label | None], *, room: tuple[int, int]) -> list[tuple[int, int]]:
    """The top left corner of each label, best box first: the first free place, else the one that is least covered.

    `room` is (width, height) of the picture. The places tried are at the box's corners, first outside, then inside.
    After them come places along its left and right side, in growing distance from the corners.
    """
    shown = [(number, box, label) for number, (box, label) in enumerate(zip(boxes, labels, strict=True)) if label]
    corners = [(0, 0)] * len(boxes)
    if not shown:
        return corners
    sizes = np.array([(label.width, label.height) for _, _, label in shown], np.int64)
    places, free = _candidates(np.array([box for _, box, _ in shown], np.int64), sizes, room)  # [L, C, 2], [L, C]
    ends = places + sizes[:, None]
    taken = np.zeros((4, len(shown)), np.int64)
    for row, (number, _, _) in enumerate(shown):
        x1, y1, x2, y2 = taken[:, :row]
        (left, top), (right, bottom) = places[row].T[..., None], ends[row].T[..., None]
        width = np.minimum(right, x2) - np.maximum(left, x1)
        height = np.minimum(bottom, y2) - np.maximum(top, y1)
        np.maximum(width, 0, out=width)
        np.maximum(height, 0, out=height)
        covered = np.einsum("ct,ct->c", width, height)  # pixels of the label that others cover
        covered[~free[row]] = _NEVER
        best = int(covered.argmin())
        taken[:2, row], taken[2:, row] = places[row, best], ends[row, best]
        corners[number] = (int(places[row, best, 0]), int(places[row, best, 1]))
    return corners


def _candidates(boxes: Integers, sizes: Integers, room: tuple[int, int]) -> tuple[Integers, NDArray[np.bool_]]:
    """The places that are tried for each label, in this order [L, C, 2], and which of them there are [L, C]."""
    height = sizes[:, 1]
    left, top, right, bottom = boxes[:, 0], boxes[:, 1], boxes[:, 2] + 1 - sizes[:, 0], boxes[:, 3] + 1
    above, inside = top - height, bottom - height
    places = [(left, above), (left, bottom), (left, top), (right, top), (left, inside), (right, inside)]
    places += [(right, above), (right, bottom)]
    for step in range(1, 5):
        for y in (top + step * height, above - step * height):
            places += [(left, y), (right, y)]
    free = np.ones((len(boxes), len(places)), bool)
    free[:, [0, 6]] = (above >= 0)[:, None]
    free[:, [1, 7]] = (bottom + height <= room[1])[:, None]
    corners = np.array(places, np.int64).transpose(2, 0, 1)
    return np.minimum(np.maximum(corners, 0), (np.array(room) - sizes)[:, None]), free
