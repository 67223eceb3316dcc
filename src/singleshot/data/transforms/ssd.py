"""The training augmentation of SSD and RefineDet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from singleshot.data.transforms.crop import SamplerCrop, crop_boxes
from singleshot.data.transforms.geometric import (
    INTERPOLATIONS,
    Expand,
    Mirror,
    Resize,
    output_size,
    reach,
    scale_boxes,
    take_window,
)
from singleshot.data.transforms.photometric import PhotometricDistortion
from singleshot.data.transforms.sample import Compose, Sample, Transform


@dataclass(frozen=True)
class SSDAugmentation:
    """Photometric distortion, expansion, seven-sampler crop, resizing and mirror, in one pass over the pixels kept.

    Random numbers and boxes are those of the same steps applied one by one (`exact`). The pixels are computed in
    another order. First, the window of the source that remains after expansion and crop is found. Then only that window
    is distorted (each pixel by itself) and stretched to the output. The pixels are the same up to rounding, with the
    exception that `take_window` describes.
    """

    resize: Resize
    photometric: PhotometricDistortion | None = None
    expand: Expand | None = None
    crop: SamplerCrop | None = None
    mirror: Mirror | None = None

    def exact(self) -> Compose:
        """The same augmentation step by step, as in the authors' code: the slow reference."""
        steps: tuple[Transform | None, ...] = (self.photometric, self.expand, self.crop, self.resize, self.mirror)
        return Compose(tuple(step for step in steps if step is not None))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Augment one sample. The output has the size of `resize`; if that is a rule, it is applied to the window."""
        height, width = sample.size
        distortion = self.photometric.draw(rng) if self.photometric else None
        left, top, right, bottom = self.expand.draw(rng, sample.size) if self.expand else (0, 0, width, height)
        # From here on, boxes and windows are in pixels of the canvas, as in the step-by-step version.
        placed = replace(sample, boxes=sample.boxes - np.array([left, top, left, top], np.float32))
        canvas = (bottom - top, right - left)
        window = (0, 0, canvas[1], canvas[0])
        if self.crop:
            window = self.crop.draw(rng, canvas, placed.boxes, placed.crowd)
            placed = crop_boxes(placed, window)
        interpolation = self.resize.draw(rng)
        size = output_size(self.resize.size, (window[3] - window[1], window[2] - window[0]), rng)

        x1, y1, x2, y2 = window[0] + left, window[1] + top, window[2] + left, window[3] + top
        seen = reach((x1, y1, x2, y2), sample.size)
        image = sample.image[seen[1] : seen[3], seen[0] : seen[2]]
        if distortion and image.size:
            image = distortion.apply(image)
        mean = self.expand.mean if self.expand else (0.0, 0.0, 0.0)
        rect = (x1 - seen[0], y1 - seen[1], x2 - seen[0], y2 - seen[1])
        image = take_window(image, rect, size, interpolation, mean)
        boxes = scale_boxes(placed.boxes, (y2 - y1, x2 - x1), size)
        result = replace(placed, image=image, boxes=boxes)
        return self.mirror(result, rng) if self.mirror else result


def ssd_augmentation(
    size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    photometric: bool = True,
    expand: bool = True,
    crop: bool = True,
    flip: bool = True,
    first: tuple[Transform, ...] = (),
) -> Compose:
    """The augmentation of SSD (section 2.2, and 3.6 for the expansion), ending in images of `size` (height, width).

    `mean` (RGB, 0..255) fills the canvas of the expansion. Each part can be switched off. Without crop and expansion
    the image is only stretched. With all four off it is stretched with linear interpolation, as in a test. `first` are
    transforms to apply before, such as `VerticalFlip()` or `QuarterTurn()` for pictures without an up and down.
    """
    augmenting = photometric or expand or crop or flip
    fast = SSDAugmentation(
        resize=Resize(size, INTERPOLATIONS) if augmenting else Resize(size),
        photometric=PhotometricDistortion() if photometric else None,
        expand=Expand(mean) if expand else None,
        crop=SamplerCrop() if crop else None,
        mirror=Mirror() if flip else None,
    )
    return Compose((*first, fast))
