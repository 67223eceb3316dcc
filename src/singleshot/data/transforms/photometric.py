"""Photometric distortion as in the code of SSD's authors (caffe, branch ssd, util/im_transforms.cpp).

Every step works on uint8 and saturates at 0 and 255. Hue and saturation are those of OpenCV's 8-bit HSV, in which hue
goes from 0 to 179 in steps of two degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from singleshot.data.transforms.sample import Image, Sample

_LEVELS = np.arange(256, dtype=np.float64)


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
        if not self.contrast_last:
            image = _apply_levels(image, (self._brightness(), self._contrast()))
            return _apply_hue(_apply_saturation(image, self.saturation), self.hue)
        image = _apply_levels(image, (self._brightness(),))
        image = _apply_hue(_apply_saturation(image, self.saturation), self.hue)
        return _apply_levels(image, (self._contrast(),))

    def _brightness(self) -> NDArray[np.uint8] | None:
        return None if self.brightness is None else _saturate(_LEVELS + self.brightness)

    def _contrast(self) -> NDArray[np.uint8] | None:
        return None if self.contrast is None else _saturate(_LEVELS * self.contrast)


def _apply_levels(image: Image, tables: tuple[NDArray[np.uint8] | None, ...]) -> Image:
    """Map each value through the tables in order, in one look-up: tables of 256 entries combine exactly."""
    total: NDArray[np.uint8] | None = None
    for table in tables:
        if table is not None:
            total = table if total is None else table[total]
    return image if total is None else np.asarray(cv2.LUT(image, total), dtype=np.uint8)


def _apply_saturation(image: Image, factor: float | None) -> Image:
    if factor is None:
        return image
    return _in_hsv(image, 1, _saturate(_LEVELS * factor))


def _apply_hue(image: Image, delta: float | None) -> Image:
    if delta is None:
        return image
    # Below 0 the hue saturates at 0 (uint8). Above 179 OpenCV's conversion back takes it modulo 180; that is done here,
    # so that it does not depend on the version of OpenCV. Hue 255 does not occur: the largest is 179 + 18.
    return _in_hsv(image, 0, _saturate(_LEVELS + delta) % np.uint8(180))


def _in_hsv(image: Image, channel: int, table: NDArray[np.uint8]) -> Image:
    tables = np.repeat(_LEVELS.astype(np.uint8)[:, None], 3, axis=1)
    tables[:, channel] = table
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


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
