"""One training image on its way through the augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # [H, W, 3] RGB


@dataclass(frozen=True)
class Sample:
    """An image and its objects; the arrays have one row per object."""

    image: Image  # [H, W, 3] RGB
    boxes: NDArray[np.float32]  # [N, 4] xyxy pixels of `image`
    labels: NDArray[np.int64]  # [N]
    crowd: NDArray[np.bool_]  # [N] regions to ignore, no objects to find

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.image.shape[0], self.image.shape[1]


class Transform(Protocol):
    """One step of the augmentation: a frozen dataclass of its choices, without a random state of its own."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Give the changed sample; everything random comes from `rng`, and `sample` stays as it was."""
        ...


@dataclass(frozen=True)
class Compose:
    """Transforms one after another."""

    transforms: tuple[Transform, ...]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply all transforms in order."""
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample
