"""Draws shapes on a textured background, partly hidden, among clutter, with their true boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from singleshot.data.shapes.texture import clutter, ground, muted, textured, vivid

CLASS_NAMES = ("circle", "square", "triangle", "star", "cross")
# Each class has its own hue, in turns, so that a small network learns the classes within minutes. The spread makes the
# hues of neighbours touch.
HUES, HUE_SPREAD = (0.0, 0.62, 0.14, 0.82, 0.4), 0.025

MOST_OBJECTS = 8
SIDES = (16.0, 160.0)  # of the longer side of a box, log-uniform, in pixels
EMPTY = 0.1  # share of images without objects
COVERED, OVERLAPPED = 0.3, 0.2  # shares of objects: covered by clutter, by another object; about a third in total
HIDDEN = 0.9  # an object with a smaller visible part counts as hidden
LEAST_SEEN = 0.45  # smallest visible part of an object; a picture that hides more is drawn again
_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates


@dataclass(frozen=True)
class ShapesImage:
    """A picture and its objects; the arrays have one row per object."""

    image: NDArray[np.uint8]  # [H, W, 3] RGB
    boxes: NDArray[np.int64]  # [N, 4] xyxy: of the whole shape, including its hidden parts, clipped to the image
    labels: NDArray[np.int64]  # [N] index into CLASS_NAMES
    visible: NDArray[np.float64]  # [N] the visible share of the shape's part inside the image
    truncated: NDArray[np.bool_]  # [N] cut by the edge of the image


@dataclass(frozen=True)
class _Shape:
    label: int
    outline: NDArray[np.float64]  # [P, 2] x, y in pixels of the image
    box: tuple[int, int, int, int]  # the box of the whole outline, not clipped


def draw_shapes(rng: np.random.Generator, size: int = 256) -> ShapesImage:
    """Draw one picture of `size` x `size` pixels. All random numbers come from `rng`."""
    while True:
        drawn = _attempt(rng, size)
        if not len(drawn.visible) or drawn.visible.min() >= LEAST_SEEN:
            return drawn


def _attempt(rng: np.random.Generator, size: int) -> ShapesImage:
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, MOST_OBJECTS + 1))
    shapes = _place(rng, size, count)
    image = ground(rng, size)
    for _ in range(int(rng.integers(2, 9))):
        clutter(rng, image)

    owner = np.full((size, size), len(shapes), np.uint8)  # the object that is visible at each pixel, if any
    whole = np.zeros(len(shapes))
    for index, shape in enumerate(shapes):
        mask = _mask(shape.outline, size)
        _paint(rng, image, mask, shape)
        inside = mask > 127
        whole[index] = np.count_nonzero(inside)
        owner[inside] = index
    for shape in shapes:
        if rng.random() < COVERED:
            mask = _cover(rng, shape, size)
            textured(rng, image, mask, muted(rng))
            owner[mask > 127] = len(shapes)
    seen = np.bincount(owner.ravel(), minlength=len(shapes) + 1)[: len(shapes)]

    boxes = np.array([shape.box for shape in shapes], np.int64).reshape(-1, 4)
    return ShapesImage(
        image=image,
        boxes=boxes.clip(0, size),
        labels=np.array([shape.label for shape in shapes], np.int64),
        visible=seen / np.maximum(whole, 1),
        truncated=np.asarray(((boxes < 0) | (boxes > size)).any(axis=1), np.bool_),
    )


def outline_of(label: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The corners [P, 2] of a shape of class `label` around the origin, slightly rotated and stretched."""
    name = CLASS_NAMES[label]
    if name == "circle":
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        points = np.stack([np.cos(angles), np.sin(angles)], 1)
    elif name == "square":
        points = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    elif name == "triangle":
        angles = np.pi * (np.array([0.0, 2, 4]) / 3 - 0.5)
        points = np.stack([np.cos(angles), np.sin(angles)], 1)
    elif name == "star":
        angles = np.pi * (np.arange(10) / 5 - 0.5)
        radius = np.where(np.arange(10) % 2, rng.uniform(0.38, 0.48), 1.0)
        points = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    else:
        a = rng.uniform(0.26, 0.4)  # half the width of an arm
        quarter = np.array([[a, -1.0], [a, -a], [1.0, -a]])
        turns = [np.array([[0.0, -1], [1, 0]]), -np.eye(2), np.array([[0.0, 1], [-1, 0]])]
        points = np.concatenate([quarter, *(quarter @ turn.T for turn in turns)])
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.5 else rng.uniform(-0.2, 0.2)
    cos, sin = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.uniform(-0.2, 0.2) * np.array([1.0, -1.0]))
    turned: NDArray[np.float64] = (points @ np.array([[cos, sin], [-sin, cos]])) * stretch
    return turned


def _place(rng: np.random.Generator, size: int, count: int) -> list[_Shape]:
    """Find places for `count` shapes, or fewer if there is no room, in painting order."""
    shapes: list[_Shape] = []
    for _ in range(count):
        label = int(rng.integers(len(CLASS_NAMES)))
        outline = outline_of(label, rng)
        low, high = outline.min(axis=0), outline.max(axis=0)
        side = np.exp(rng.uniform(*np.log(SIDES)))
        outline = (outline - low) * (side / (high - low).max())
        extent = outline.max(axis=0)
        over = bool(shapes) and rng.random() < OVERLAPPED
        outside = 0.2 if rng.random() < 0.15 else 0.0  # the part that may lie outside the image
        for _ in range(40):
            corner = rng.uniform(-outside * extent, size - (1 - outside) * extent)
            placed = outline + corner
            x1, y1 = np.floor(placed.min(axis=0)).astype(int).tolist()
            x2, y2 = np.ceil(placed.max(axis=0)).astype(int).tolist()
            shared = max((_shared((x1, y1, x2, y2), shape.box) for shape in shapes), default=0.0)
            if 0.1 < shared < 0.45 if over else shared < 0.04:
                shapes.append(_Shape(label, placed, (x1, y1, x2, y2)))
                break
    return shapes


def _shared(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """The overlap of two boxes as a share of the smaller one."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(w, 0) * max(h, 0) / smaller


def _mask(outline: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Coverage 0..255 of each pixel [size, size]; pixel centres lie at halves."""
    mask = np.zeros((size, size), np.uint8)
    points = np.rint((outline - 0.5) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, [points[:, None]], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return mask


def _paint(rng: np.random.Generator, image: NDArray[np.uint8], mask: NDArray[np.uint8], shape: _Shape) -> None:
    hue = HUES[shape.label] + rng.normal(0, HUE_SPREAD)
    textured(rng, image, mask, vivid(rng, hue))
    if rng.random() < 0.3:  # a contour in another shade, inside the shape
        width = max(1, round(0.05 * (shape.box[2] - shape.box[0])))
        inner = cv2.erode(mask, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
        textured(rng, image, np.asarray(cv2.subtract(mask, inner), np.uint8), vivid(rng, hue))


def _cover(rng: np.random.Generator, shape: _Shape, size: int) -> NDArray[np.uint8]:
    """A bar or a blob across a corner or a side of the shape."""
    x1, y1, x2, y2 = shape.box
    centre, side = np.array([x1 + x2, y1 + y2]) / 2, np.array([x2 - x1, y2 - y1])
    angle = rng.uniform(0, 2 * np.pi)
    away = np.array([np.cos(angle), np.sin(angle)])
    mask = np.zeros((size, size), np.uint8)
    if rng.random() < 0.5:
        middle, along = centre + away * side * rng.uniform(0.0, 0.35), np.array([-away[1], away[0]])
        half = along * side.max() * rng.uniform(0.6, 1.2)
        ends = [tuple(np.rint(point).astype(int).tolist()) for point in (middle - half, middle + half)]
        cv2.line(mask, ends[0], ends[1], 255, max(2, round(side.min() * rng.uniform(0.15, 0.3))), cv2.LINE_AA)
    else:
        middle = centre + away * side * rng.uniform(0.4, 0.55)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radius = 1 + 0.25 * np.sin(2 * angles + rng.uniform(0, 6)) + 0.15 * np.sin(5 * angles + rng.uniform(0, 6))
        blob = middle + (radius * side.mean() * rng.uniform(0.25, 0.4))[:, None] * np.stack(
            [np.cos(angles), np.sin(angles)], 1
        )
        mask = _mask(blob, size)
    return mask
