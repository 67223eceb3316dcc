"""Photometric distortion as in the code of SSD's authors (caffe, branch ssd, util/im_transforms.cpp).

Every step works on uint8 and saturates at 0 and 255. Hue and saturation are those of OpenCV's 8-bit HSV, in which hue
goes from 0 to 179 in steps of two degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from singleshot.data.transforms.sample import Image, Sample

_LEVELS = np.arange(256, dtype=np.float64)
_TABLE = _LEVELS.astype(np.uint8)[:, None]


def _saturate(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round half to even and clip to 0..255: what OpenCV's `saturate_cast<uchar>` does."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Distortion:
    """The random numbers for one image; None skips a step."""

    brightness: float | None  # added
    contrast: float | None  # factor of the values themselves, not of their distance from a mean
    saturation: float | None  # factor of S in HSV
    hue: float | None  # added to OpenCV's hue (0..179)
    contrast_last: bool  # brightness, saturation, hue, contrast; else contrast is second

    def apply(self, image: Image) -> Image:
        """Return a distorted copy of an RGB image [H, W, 3], or the image itself if no step was drawn.

        Each pixel is changed by itself. So cropping before or after gives the same result, up to rounding: OpenCV's
        vectorised conversions and their scalar remainder may differ by one.
        """
        image = _brighter(image, self.brightness)
        if not self.contrast_last:
            image = _scaled(image, self.contrast)
        image = _in_hsv(image, 1, self.saturation, _scaled)
        image = _in_hsv(image, 0, self.hue, _turned)
        return _scaled(image, self.contrast) if self.contrast_last else image


# Each step is a table of 256 levels, and only the table says what is right. OpenCV has vector instructions for sums and
# products, but none for tables. So a sum or product is used if it gives the table, which it nearly always does.
def _brighter(image: Image, delta: float | None) -> Image:
    if delta is None:
        return image
    whole = np.full(4, round(delta), np.float64)
    return _mapped(image, _saturate(_LEVELS + delta), lambda values: cv2.add(values, whole))


def _scaled(image: Image, factor: float | None) -> Image:
    if factor is None:
        return image
    return _mapped(image, _saturate(_LEVELS * factor), lambda values: cv2.convertScaleAbs(values, alpha=factor))


def _turned(hue: Image, delta: float | None) -> Image:
    # Below 0 the hue saturates at 0 (uint8). Above 179 OpenCV's conversion back takes it modulo 180; that is done here,
    # so that it does not depend on the version of OpenCV. Hue 255 does not occur: the largest is 179 + 18.
    return hue if delta is None else np.asarray(cv2.LUT(hue, _saturate(_LEVELS + delta) % np.uint8(180)), np.uint8)


def _mapped(image: Image, table: NDArray[np.uint8], fast: Callable[[Image], Any]) -> Image:
    """Every value through the table; by `fast` if that does the same."""
    same = np.array_equal(fast(_TABLE).reshape(-1), table)
    return np.asarray(fast(image) if same else cv2.LUT(image, table), np.uint8)


def _in_hsv(image: Image, channel: int, number: float | None, change: Callable[[Image, float | None], Image]) -> Image:
    """The image with one channel of its HSV changed."""
    if number is None:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(change(np.asarray(cv2.extractChannel(hsv, channel), np.uint8), number), hsv, channel)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv), np.uint8)


@dataclass(frozen=True)
class PhotometricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability one half.

    Contrast is second or last, each with probability one half. Values from the authors' scripts
    (examples/ssd/ssd_pascal.py): brightness +-32, contrast and saturation x 0.5..1.5, hue +-18 steps of OpenCV
    (+-36 degrees). The authors' channel permutation has probability 0 there and is left out.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0
    probability: float = 0.5

    def draw(self, rng: np.random.Generator) -> Distortion:
        """Draw the numbers for one image (always nine uniform values, even if some are not used)."""
        u = rng.random(9)
        on = u[:4] < self.probability
        return Distortion(
            brightness=_between(-self.brightness, self.brightness, u[4]) if on[0] else None,
            contrast=_between(*self.contrast, u[5]) if on[1] else None,
            saturation=_between(*self.saturation, u[6]) if on[2] else None,
            hue=_between(-self.hue, self.hue, u[7]) if on[3] else None,
            contrast_last=bool(u[8] < 0.5),
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Distort the image; the boxes do not change."""
        return replace(sample, image=self.draw(rng).apply(sample.image))


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * float(u)
