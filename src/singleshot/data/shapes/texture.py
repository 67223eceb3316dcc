"""Backgrounds, fills and clutter of the generated pictures."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]  # [3] RGB, 0..255


def muted(rng: np.random.Generator) -> Colour:
    """A colour for backgrounds and clutter: nearly grey."""
    return np.asarray(rng.uniform(30, 225) + rng.uniform(-25, 25, 3), np.float64).clip(0, 255)


def vivid(rng: np.random.Generator, hue: float) -> Colour:
    """A strong colour. `hue` is in turns: 0 is red and 1/3 is green."""
    saturation, value = rng.uniform(0.6, 1.0), rng.uniform(0.55, 1.0)
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255


def ground(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A background [size, size, 3]: a slow gradient between two similar colours, sometimes stripes, and grain."""
    base = muted(rng)
    pattern = _smooth(rng, size, cells=int(rng.integers(2, 7)))
    if rng.random() < 0.4:
        pattern = 0.6 * pattern + 0.4 * _waves(rng, size, size)
    fine = _smooth(rng, size, cells=int(rng.integers(20, 65))) * np.float32(rng.uniform(0, 14))
    fine += rng.standard_normal((size, size), np.float32) * np.float32(rng.uniform(1, 8))
    tint = rng.uniform(-35, 35) + rng.uniform(-10, 10, 3)
    planes = [(pattern * np.float32(tint[i]) + fine + np.float32(base[i])).clip(0, 255) for i in range(3)]
    return np.stack(planes, axis=-1, dtype=np.uint8, casting="unsafe")


def textured(rng: np.random.Generator, image: NDArray[np.uint8], mask: NDArray[np.uint8], colour: Colour) -> None:
    """Fill the area of `mask` [H, W] (0..255) in place with a colour that is plain, striped, shaded or grainy."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return
    part = np.s_[y : y + height, x : x + width]
    kind = rng.random()
    if kind < 0.35:
        pattern = np.zeros((height, width), np.float32)
    elif kind < 0.6:
        pattern = _waves(rng, height, width)
    elif kind < 0.85:
        pattern = _smooth(rng, max(height, width), cells=int(rng.integers(2, 6)))[:height, :width]
    else:
        pattern = rng.standard_normal((height, width), np.float32) * np.float32(0.6)
    shade = rng.uniform(-30, 30) + rng.uniform(-12, 12, 3)  # lighter and darker rather than another colour
    fill = colour.astype(np.float32) + pattern[..., None] * shade.astype(np.float32)
    alpha = mask[part][..., None] / np.float32(255)
    image[part] = (image[part] * (1 - alpha) + fill.clip(0, 255) * alpha).astype(np.uint8)


def clutter(rng: np.random.Generator, image: NDArray[np.uint8]) -> None:
    """Draw one distractor in place, which is not an object: a line, a blob, or a row of strokes like writing."""
    size = image.shape[0]
    kind = rng.random()
    mask = np.zeros(image.shape[:2], np.uint8)
    if kind < 0.4:
        start = rng.uniform(0, size, 2)
        steps = rng.normal(0, size * 0.25, (int(rng.integers(1, 5)), 2))
        points = np.concatenate([start[None], start + np.cumsum(steps, axis=0)]).astype(np.int32)
        cv2.polylines(mask, [points[:, None]], False, 255, int(rng.integers(1, 6)), cv2.LINE_AA)
    elif kind < 0.75:
        angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
        radius = np.ones_like(angles)
        for order in (2, 3, 5):  # far from round, without corners
            radius += rng.uniform(0.15, 0.35) * np.sin(order * angles + rng.uniform(0, 2 * np.pi))
        reach = np.exp(rng.uniform(np.log(5), np.log(45)))
        centre = rng.uniform(0, size, 2)
        blob = centre + (reach * radius)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [np.rint(blob).astype(np.int32)[:, None]], 255, cv2.LINE_AA)
    else:
        x, y = rng.uniform(0, size * 0.8), rng.uniform(0, size)
        tall = rng.uniform(5, 18)
        for _ in range(int(rng.integers(3, 12))):
            stroke = np.array([x, y]) + rng.uniform(0, 1, (int(rng.integers(2, 5)), 2)) * [tall * 0.6, tall]
            cv2.polylines(mask, [np.rint(stroke).astype(np.int32)[:, None]], False, 255, 1, cv2.LINE_AA)
            x += tall * 0.8
    textured(rng, image, mask, muted(rng))


def _smooth(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float32]:
    """Noise [size, size] of about -1..1, without detail smaller than size / cells pixels."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _waves(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Stripes [height, width] of -1..1, of random direction and pitch."""
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(5, 30)
    x = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle) * 2 * np.pi / pitch)
    y = np.arange(height, dtype=np.float32) * np.float32(np.sin(angle) * 2 * np.pi / pitch)
    waves: NDArray[np.float32] = np.sin(x + y[:, None])
    return np.sign(waves) if rng.random() < 0.4 else waves
