"""One training image during augmentation, and the interface of transforms."""

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
    crowd: NDArray[np.bool_]  # [N] True for regions to ignore, which are not objects

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.image.shape[0], self.image.shape[1]


class Transform(Protocol):
    """One step of the augmentation: a frozen dataclass of its choices, without its own random state."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a changed copy of `sample`, which is not changed itself. All random numbers come from `rng`."""
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
