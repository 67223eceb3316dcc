"""One colour per class. People with any colour vision can tell the colours apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

# M. Okabe and K. Ito, Color Universal Design (2008), without black: orange, sky blue, vermillion, bluish green, yellow,
# reddish purple, blue.
_FIRST = ((230, 159, 0), (86, 180, 233), (213, 94, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (0, 114, 178))

# Colours as seen without red and without green cones, on linear RGB: G. M. Machado et al., A physiologically-based
# model for simulation of color vision deficiency (2009), severity 1.0.
_PROTAN = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
_DEUTAN = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))

# Linear RGB to Oklab, B. Ottosson (2020), in which Euclidean distances correspond to perceived differences.
_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_SIZE = 240  # number of colours before they repeat


def class_colour(label: int) -> Colour:
    """The colour of a class. It depends only on the label, not on the number of classes; colours repeat after 240."""
    return _palette()[label % _SIZE]


def contrast(first: Colour, second: Colour) -> float:
    """The contrast ratio of two colours, from 1 (equal) to 21 (black on white): WCAG 2.2, section 1.4.3."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


@lru_cache(maxsize=512)
def opposite(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more. The ratio is at least 4.58: the product of both is always 21."""
    return max(BLACK, WHITE, key=lambda other: contrast(colour, other))


@lru_cache(maxsize=1)
def _palette() -> tuple[Colour, ...]:
    """Okabe and Ito's seven colours, then repeatedly the colour of a grid that is farthest from all chosen ones.

    The distance is the one seen with full colour vision plus twice the one seen with the worse of two deficiencies.
    """
    steps = np.linspace(0, 255, 11).round()
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = _oklab(_linear(grid))
    # No colours that look like the black or white of outlines and text, or like the grey of a photograph.
    kept = (lab[:, 0] > 0.35) & (lab[:, 0] < 0.93) & (np.hypot(lab[:, 1], lab[:, 2]) > 0.06)
    colours = np.concatenate([np.array(_FIRST, np.float64), grid[kept]])
    linear = _linear(colours)
    views = [_oklab(linear), *(_oklab(np.clip(linear @ np.array(m).T, 0, 1)) for m in (_PROTAN, _DEUTAN))]
    nearest = np.full(len(colours), np.inf)
    taken: list[int] = []
    for i in range(_SIZE):
        new = i if i < len(_FIRST) else int(nearest.argmax())
        taken.append(new)
        full, protan, deutan = (np.linalg.norm(view - view[new], axis=1) for view in views)
        nearest = np.minimum(nearest, full + 2 * np.minimum(protan, deutan))
    return tuple((int(r), int(g), int(b)) for r, g, b in colours[taken])


def _linear(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours in sRGB, 0..255 -> linear RGB, 0..1."""
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _oklab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    lab: NDArray[np.float64] = np.cbrt(linear @ np.array(_TO_LMS).T) @ np.array(_TO_LAB).T
    return lab


def _luminance(colour: Colour) -> float:
    return float(_linear(np.array(colour, np.float64)) @ np.array((0.2126, 0.7152, 0.0722)))
