"""The seven-sampler crop of SSD (caffe, branch ssd, util/sampler.cpp; settings of examples/ssd/ssd_pascal.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from singleshot.data.transforms.sample import Sample

Rect = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels."""


@dataclass(frozen=True)
class SamplerCrop:
    """Crop a patch that one of seven samplers found (SSD, section 2.2 "Data augmentation").

    Sampler 1 gives the whole image. Samplers 2 to 6 need ANY object to overlap the patch by an IoU of at least 0.1,
    0.3, 0.5, 0.7, 0.9. Sampler 7 accepts any patch. Each sampler tries up to 50 patches and keeps its first success.
    One of the patches found is then drawn uniformly. Crowd regions do not count as objects here.

    A patch has scale U(0.3, 1) and aspect U(0.5, 2), which is clamped to [scale^2, 1 / scale^2] so that the patch fits.
    Its sides are scale * sqrt(aspect) and scale / sqrt(aspect) times the image's. Sides and corners are truncated to
    whole pixels before the test, so that the patch tested is the patch cut out. A box is kept if its centre lies in the
    patch, bounds included, and is clipped to it.
    """

    overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    trials: int = 50
    scale: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)

    def draw(
        self, rng: np.random.Generator, size: tuple[int, int], boxes: NDArray[np.float32], crowd: NDArray[np.bool_]
    ) -> Rect:
        """Choose the patch for an image of `size` (height, width) with objects `boxes` [N, 4]."""
        patches = self.patches(rng, size)  # [S, T, 4], the last sampler without a condition
        found: list[NDArray[np.int64]] = [np.array([0, 0, size[1], size[0]])]
        objects = boxes[~crowd].astype(np.float64)
        if len(objects):
            best = best_overlap(patches[:-1], objects)  # [S - 1, T]
            success = best >= np.array(self.overlaps)[:, None]
            first = success.argmax(axis=1)
            found += [patches[s, first[s]] for s in np.flatnonzero(success.any(axis=1))]
        found.append(patches[-1, 0])
        x1, y1, x2, y2 = found[int(rng.integers(len(found)))].tolist()
        return x1, y1, x2, y2

    def patches(self, rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.int64]:
        """Draw every trial of samplers 2 to 7 at once: xyxy in whole pixels, [samplers, trials, 4]."""
        height, width = size
        u = rng.random((4, len(self.overlaps) + 1, self.trials))
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * u[0]
        aspect = self.aspect[0] + (self.aspect[1] - self.aspect[0]) * u[1]
        square = scale**2
        root = np.sqrt(np.minimum(np.maximum(aspect, square), 1 / square))
        # The clamp makes a side 1 except for rounding; the minimum keeps it inside.
        w = np.minimum(np.maximum((scale * root * width).astype(np.int64), 1), width)
        h = np.minimum(np.maximum((scale / root * height).astype(np.int64), 1), height)
        x = (u[2] * (width - w + 1)).astype(np.int64)
        y = (u[3] * (height - h + 1)).astype(np.int64)
        return np.stack([x, y, x + w, y + h], axis=-1)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut out the patch and keep the boxes whose centre lies in it."""
        rect = self.draw(rng, sample.size, sample.boxes, sample.crowd)
        x1, y1, x2, y2 = rect
        return crop_boxes(Sample(sample.image[y1:y2, x1:x2], sample.boxes, sample.labels, sample.crowd), rect)


def best_overlap(patches: NDArray[np.int64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest IoU of each patch [..., 4] with any of the boxes [N, 4], N > 0: [...]."""
    x1, y1, x2, y2 = np.moveaxis(patches, -1, 0).astype(np.float64, order="C")[:, None]
    left, top, right, bottom = boxes.T.reshape(4, -1, *(1,) * (patches.ndim - 1))  # [N, 1, ...]: long rows of patches
    shared = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    shared *= np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
    area = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top)
    area -= shared
    best: NDArray[np.float64] = (shared / area).max(axis=0)
    return best


def crop_boxes(sample: Sample, rect: Rect) -> Sample:
    """Keep the boxes whose centre lies in the patch (bounds included), clip them and make them relative to it.

    The image is not changed.
    """
    x1, y1, x2, y2 = rect
    boxes = sample.boxes
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    keep = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    low, high = np.array([x1, y1, x1, y1], np.float32), np.array([x2, y2, x2, y2], np.float32)
    return Sample(sample.image, boxes[keep].clip(low, high) - low, sample.labels[keep], sample.crowd[keep])
