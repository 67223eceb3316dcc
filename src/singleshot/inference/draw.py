"""Draws detections: boxes with names and scores, readable on any background, and contact sheets of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from singleshot.errors import UserError
from singleshot.inference.labels import Box, Label, fit, place, text_length
from singleshot.inference.palette import Colour, class_colour, opposite
from singleshot.prediction import Prediction

Picture = NDArray[np.uint8]

_GROUND = (32, 32, 36)  # of contact sheets
_CAPTION = (235, 235, 235)


def draw(
    image: Picture, prediction: Prediction, *, threshold: float = 0.0, labels: bool = True, scores: bool = True
) -> Picture:
    """Draw the detections of at least that score on a copy of the image. Returns uint8 [H, W, 3], RGB.

    Each class has its own colour, the same in every picture. The outline of boxes and labels, and the text on labels,
    is black or white, whichever contrasts more with their colour. So the box or its outline stands out from any
    background. Lines and letters grow with the picture. Labels (`labels=False`: none) stay inside the picture and do
    not overlap if there is room. In very small pictures they are shortened, and the score goes first (`scores=False`:
    the name only). Where boxes overlap, the one with the higher score is on top.
    """
    height, width = _checked(image)
    scale = math.sqrt(height * width)
    line, edge = max(1, round(scale / 320)), max(1, round(scale / 900))
    size = max(10, round(scale / 42))
    shown = _visible(prediction, threshold, (height, width))
    names = prediction.names if len(prediction) else []
    values, classes = prediction.scores_array.tolist(), prediction.labels_array.tolist()

    canvas = np.array(image, order="C")
    for i, box in reversed(shown):
        colour = class_colour(classes[i])
        _frame(canvas, _grown(box, edge), opposite(colour), line + 2 * edge)
        _frame(canvas, box, colour, line)
    if labels:
        room = (width, height)
        told = [f"{values[i]:.2f}" if scores else "" for i, _ in shown]
        texts = [fit(names[i], t, classes[i], size=size, room=room) for (i, _), t in zip(shown, told, strict=True)]
        corners = place([box for _, box in shown], texts, room=room)
        for (i, _), label, corner in reversed(list(zip(shown, texts, corners, strict=True))):
            if label is not None:
                _write(canvas, label, corner, class_colour(classes[i]), edge)
    return canvas


def contact_sheet(
    images: Sequence[Picture], *, columns: int = 4, cell: int = 256, captions: Sequence[str] | None = None
) -> Picture:
    """Put images of any sizes into a grid of square cells, row by row, with a caption below each. uint8 [H, W, 3].

    Images keep their aspect ratio and are resized to fill their cell of `cell` pixels. Captions that are too long for a
    cell are cut.
    """
    if not images:
        raise UserError("a contact sheet needs at least one image, got none")
    if columns < 1 or cell < 16:
        raise UserError(f"a contact sheet needs columns >= 1 and cell >= 16, got columns {columns} and cell {cell}")
    if captions is not None and len(captions) != len(images):
        raise UserError(f"a contact sheet needs one caption per image, got {len(captions)} for {len(images)}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    gap = max(2, cell // 32)
    size = max(10, cell // 18)
    below = 2 * size if captions is not None else 0
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (cell + below + gap) + gap), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for k, image in enumerate(images):
        left = gap + k % columns * (cell + gap)
        top = gap + k // columns * (cell + below + gap)
        small = _resized(image, cell)
        height, width = small.shape[:2]
        sheet.paste(Image.fromarray(small), (left + (cell - width) // 2, top + (cell - height) // 2))
        if captions is not None and captions[k]:
            label = fit(captions[k], "", k, size=size, room=(cell, below))
            if label is not None:
                across = left + (cell - label.width) // 2 + label.margin
                pen.text((across, top + cell + below / 2), label.text, fill=_CAPTION, font=label.font, anchor="lm")
    return np.array(sheet)


def _checked(image: Picture) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UserError(f"a picture must be an RGB array [H, W, 3] of uint8, got {list(image.shape)} of {image.dtype}")
    return image.shape[0], image.shape[1]


def _visible(prediction: Prediction, threshold: float, size: tuple[int, int]) -> list[tuple[int, Box]]:
    """The index and the pixel box of every box that is at least partly inside the picture, best first."""
    height, width = size
    shown: list[tuple[int, Box]] = []
    scores = prediction.scores_array
    order = np.argsort(-scores, kind="stable").tolist()
    boxes, counts = prediction.boxes_array.tolist(), (scores >= np.float32(threshold)).tolist()
    for i in order:
        x1, y1, x2, y2 = boxes[i]
        if not counts[i] or not all(map(math.isfinite, boxes[i])):
            continue
        if x2 < x1 or y2 < y1 or x2 < 0 or y2 < 0 or x1 > width or y1 > height:
            continue
        left, top = min(max(math.floor(x1), 0), width - 1), min(max(math.floor(y1), 0), height - 1)
        right, bottom = min(max(math.ceil(x2) - 1, left), width - 1), min(max(math.ceil(y2) - 1, top), height - 1)
        shown.append((i, (left, top, right, bottom)))
    return shown


def _write(canvas: Picture, label: Label, corner: tuple[int, int], colour: Colour, edge: int) -> None:
    """Put a label on the picture, part by part."""
    x, y = corner
    at, end = x, x + label.width
    for part in label.parts:
        last = part is label.parts[-1]
        margin = label.margin if at == x else 0
        width = end - at if last else margin + round(text_length(part, label.font))
        canvas[y : y + label.height, at : at + width] = _tile(part, label.font, (width, label.height), margin, colour)
        at += width
    _frame(canvas, (x, y, end - 1, y + label.height - 1), opposite(colour), min(edge, label.margin))


@lru_cache(maxsize=4096)
def _tile(text: str, font: ImageFont.FreeTypeFont, size: tuple[int, int], left: int, colour: Colour) -> Picture:
    """A text on the ground of its label, as pixels."""
    tile = Image.new("RGB", size, colour)
    ImageDraw.Draw(tile).text((left, font.getmetrics()[0]), text, fill=opposite(colour), font=font, anchor="ls")
    return np.array(tile)


def _frame(canvas: Picture, box: Box, colour: Colour, width: int) -> None:
    """The outline of a box, whose lines lie inside it."""
    left, top, right, bottom = box
    across, down = min(width, right - left + 1) - 1, min(width, bottom - top + 1) - 1
    for corner, other in (
        ((left, top), (right, top + down)),
        ((left, bottom - down), (right, bottom)),
        ((left, top), (left + across, bottom)),
        ((right - across, top), (right, bottom)),
    ):
        cv2.rectangle(canvas, corner, other, colour, cv2.FILLED)


def _grown(box: Box, edge: int) -> Box:
    return box[0] - edge, box[1] - edge, box[2] + edge, box[3] + edge


def _resized(image: Picture, cell: int) -> Picture:
    height, width = _checked(image)
    factor = cell / max(height, width)
    if factor == 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)
