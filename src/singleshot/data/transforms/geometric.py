"""Expansion, resizing, flips and transposition: transforms that move pixels and boxes together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from singleshot.data.transforms.crop import Rect, crop_boxes
from singleshot.data.transforms.sample import Image, Sample
from singleshot.ops.fit import Fit, ShortSideRange

INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
"""The five interpolations that the authors of SSD draw from in training (caffe, branch ssd, data_transformer.cpp)."""

Mean = tuple[float, float, float]  # RGB, 0..255
Target = tuple[int, int] | Fit | ShortSideRange
"""The size that an image is resized to: (height, width), or a rule that keeps the aspect ratio."""

_MARGIN = 4  # pixels that the widest filter (Lanczos, 8 taps) reaches beyond a window
_WARP_LIMIT = 32_000  # cv2.warpAffine addresses its source with 16 bits


@dataclass(frozen=True)
class Expand:
    """Zoom out: put the image at a random place on a larger canvas filled with the mean (SSD, section 3.6).

    With `probability`, the canvas is U(1, maximum) times as high and as wide. All boxes are kept.
    """

    mean: Mean  # RGB, 0..255
    maximum: float = 4.0
    probability: float = 0.5

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Rect:
        """The canvas in pixels of the image: (-left, -top, width - left, height - top); if off, the image itself."""
        u = rng.random(4)
        height, width = size
        if u[0] >= self.probability:
            return 0, 0, width, height
        ratio = 1 + (self.maximum - 1) * u[1]
        canvas_height, canvas_width = int(height * ratio), int(width * ratio)
        top, left = int(u[2] * (canvas_height - height + 1)), int(u[3] * (canvas_width - width + 1))
        return -left, -top, canvas_width - left, canvas_height - top

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Expand the image, or return it unchanged."""
        height, width = sample.size
        x1, y1, x2, y2 = self.draw(rng, sample.size)
        if (x2 - x1, y2 - y1) == (width, height):
            return sample
        canvas = np.empty((y2 - y1, x2 - x1, 3), np.uint8)
        canvas[:] = np.rint(self.mean)
        canvas[-y1 : height - y1, -x1 : width - x1] = sample.image
        return replace(sample, image=canvas, boxes=sample.boxes - np.array([x1, y1, x1, y1], np.float32))


@dataclass(frozen=True)
class Resize:
    """Stretch to `size` (height, width), or resize by a rule that keeps the aspect ratio.

    The interpolation is drawn uniformly if several are given. Then the short side is drawn if the rule is a range.
    """

    size: Target
    interpolations: tuple[int, ...] = (cv2.INTER_LINEAR,)

    def draw(self, rng: np.random.Generator) -> int:
        """Choose the interpolation."""
        return self.interpolations[int(rng.integers(len(self.interpolations)))]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resize the image and scale the boxes with it."""
        interpolation = self.draw(rng)
        height, width = output_size(self.size, sample.size, rng)
        image = np.asarray(cv2.resize(sample.image, (width, height), interpolation=interpolation), np.uint8)
        return replace(sample, image=image, boxes=scale_boxes(sample.boxes, sample.size, (height, width)))


@dataclass(frozen=True)
class Mirror:
    """Flip left and right."""

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Flip with the given probability."""
        if rng.random() >= self.probability:
            return sample
        x1, y1, x2, y2 = sample.boxes.T
        width = np.float32(sample.size[1])
        return replace(
            sample, image=_flip(sample.image, 1), boxes=np.stack([width - x2, y1, width - x1, y2], 1, dtype=np.float32)
        )


@dataclass(frozen=True)
class VerticalFlip:
    """Flip top and bottom: for textures, cells, views from above. Not part of SSD's augmentation."""

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Flip with the given probability."""
        if rng.random() >= self.probability:
            return sample
        x1, y1, x2, y2 = sample.boxes.T
        height = np.float32(sample.size[0])
        return replace(
            sample,
            image=_flip(sample.image, 0),
            boxes=np.stack([x1, height - y2, x2, height - y1], 1, dtype=np.float32),
        )


@dataclass(frozen=True)
class QuarterTurn:
    """Transpose with a probability: with both flips, all eight symmetries of a square. Not part of SSD's augmentation.

    Height and width are swapped.
    """

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Swap rows and columns with the given probability."""
        if rng.random() >= self.probability:
            return sample
        image = np.asarray(cv2.transpose(sample.image), np.uint8)
        return replace(sample, image=image, boxes=np.ascontiguousarray(sample.boxes[:, [1, 0, 3, 2]]))


@dataclass(frozen=True)
class ScaleJitter:
    """Zoom in or out a little and stretch to `size`: gentler than expansion and crop. Not part of SSD's augmentation.

    The image is scaled by a factor drawn log-uniformly from `scale`. Each side is scaled again by a factor from
    1 / `stretch` to `stretch`. The result is put at a random place: cut where it is larger than the output, filled with
    the mean where it is smaller. A box is kept if its centre is, and is clipped. If `size` is a rule that keeps the
    aspect ratio, the output has the size that the whole image would have.
    """

    size: Target
    mean: Mean  # RGB, 0..255
    scale: tuple[float, float] = (0.7, 1.5)
    stretch: float = 1.15
    interpolations: tuple[int, ...] = INTERPOLATIONS

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Take a random window of about the image's size."""
        height, width = sample.size
        u = rng.random(5)
        zoom = np.exp(np.log(self.scale[0]) + np.log(self.scale[1] / self.scale[0]) * u[0])
        stretch = self.stretch ** (2 * u[1:3] - 1)
        w, h = (max(1, round(side)) for side in (width / zoom * stretch[0], height / zoom * stretch[1]))
        x, y = int(np.floor(u[3] * (width - w + 1))), int(np.floor(u[4] * (height - h + 1)))
        rect = (x, y, x + w, y + h)
        interpolation = self.interpolations[int(rng.integers(len(self.interpolations)))]
        cropped = crop_boxes(sample, rect)
        size = output_size(self.size, sample.size, rng)
        image = take_window(sample.image, rect, size, interpolation, self.mean)
        return replace(cropped, image=image, boxes=scale_boxes(cropped.boxes, (h, w), size))


def output_size(target: Target, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """(height, width) that an image or window of `size` (height, width) is resized to.

    Draws one number if the target is a range of short sides, else none.
    """
    if isinstance(target, tuple):
        return target
    if isinstance(target, ShortSideRange):
        target = target.at(int(rng.integers(target.low, target.high + 1)))
    return target(*size)


def scale_boxes(boxes: NDArray[np.float32], before: tuple[int, int], after: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes [N, 4] of an image of size `before` (height, width), stretched to size `after`."""
    y, x = after[0] / before[0], after[1] / before[1]
    # In float64, so that a box at the edge of the image ends exactly at the edge, without a rounding error.
    return (boxes * np.array([x, y, x, y], np.float64)).astype(np.float32)


def take_window(image: Image, rect: Rect, size: tuple[int, int], interpolation: int, mean: Mean) -> Image:
    """Stretch a window of an image to `size` (height, width). Where it reaches over the edges, it has the mean.

    The result is that of putting the image on a canvas of the mean, cropping and resizing. But no canvas is made, since
    it would be up to 16 times as large as the image. A window inside the image gives exactly the same pixels. Across an
    edge the pixels are interpolated in one step and are the same up to rounding. Only with INTER_AREA the image is
    placed on whole pixels of the output (at most half a pixel off).
    """
    x1, y1, x2, y2 = rect
    height, width = size
    inner = max(x1, 0), max(y1, 0), min(x2, image.shape[1]), min(y2, image.shape[0])
    if inner == rect:
        return np.asarray(cv2.resize(image[y1:y2, x1:x2], (width, height), interpolation=interpolation), np.uint8)
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        return _filled(size, mean)
    fx, fy = width / (x2 - x1), height / (y2 - y1)
    output = _filled(size, mean)
    if interpolation == cv2.INTER_AREA or max(image.shape) > _WARP_LIMIT:
        left, right = _whole((inner[0] - x1) * fx, (inner[2] - x1) * fx, width)
        top, bottom = _whole((inner[1] - y1) * fy, (inner[3] - y1) * fy, height)
        part = image[inner[1] : inner[3], inner[0] : inner[2]]
        output[top:bottom, left:right] = cv2.resize(part, (right - left, bottom - top), interpolation=interpolation)
        return output
    # Only the part of the output that the image (and its filter's reach) covers is computed.
    left, right = max(int((inner[0] - _MARGIN - x1) * fx), 0), min(int((inner[2] + _MARGIN - x1) * fx) + 1, width)
    top, bottom = max(int((inner[1] - _MARGIN - y1) * fy), 0), min(int((inner[3] + _MARGIN - y1) * fy) + 1, height)
    # Pixel centres lie at halves. Only with INTER_NEAREST does cv2.resize take the source pixel under the corner of the
    # output pixel instead of its centre. The hundredth avoids a tie, which the warp would round either way.
    half, centre = (0.0, 0.49) if interpolation == cv2.INTER_NEAREST else (0.5, 0.5)
    matrix = np.array([[fx, 0, (centre - x1) * fx - half - left], [0, fy, (centre - y1) * fy - half - top]])
    output[top:bottom, left:right] = cv2.warpAffine(
        image,
        matrix,
        (right - left, bottom - top),
        flags=interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=np.rint(mean).tolist(),
    )
    return output


def _filled(size: tuple[int, int], mean: Mean) -> Image:
    """An image of one colour. Whole rows are copied: fifty times faster than pixels."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image.reshape(height, 3 * width)[:] = np.tile(np.rint(mean).astype(np.uint8), width)
    return image


def reach(rect: Rect, size: tuple[int, int]) -> Rect:
    """The part of an image of `size` (height, width) that `take_window` may read for this window.

    Empty (x1 = x2 or y1 = y2) if the window lies outside the image.
    """
    x1, y1, x2, y2 = rect
    height, width = size
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return rect
    left, top = min(max(x1 - _MARGIN, 0), width), min(max(y1 - _MARGIN, 0), height)
    return left, top, max(min(x2 + _MARGIN, width), left), max(min(y2 + _MARGIN, height), top)


def _whole(low: float, high: float, limit: int) -> tuple[int, int]:
    """The whole pixels nearest to an interval, at least one, within 0..limit."""
    first = min(round(low), limit - 1)
    return first, max(min(round(high), limit), first + 1)


def _flip(image: Image, axis: int) -> Image:
    return np.asarray(cv2.flip(image, axis), np.uint8)
