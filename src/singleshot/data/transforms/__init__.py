"""Augmentation of training images: frozen dataclasses that take a `Sample` and a random generator.

The random state is always passed in. No transform has its own.
"""

from __future__ import annotations

from singleshot.data.transforms.crop import SamplerCrop
from singleshot.data.transforms.geometric import (
    INTERPOLATIONS,
    Expand,
    Mirror,
    QuarterTurn,
    Resize,
    ScaleJitter,
    Target,
    VerticalFlip,
)
from singleshot.data.transforms.photometric import PhotometricDistortion
from singleshot.data.transforms.sample import Compose, Sample, Transform
from singleshot.data.transforms.ssd import SSDAugmentation, ssd_augmentation

__all__ = [
    "INTERPOLATIONS",
    "Compose",
    "Expand",
    "Mirror",
    "PhotometricDistortion",
    "QuarterTurn",
    "Resize",
    "SSDAugmentation",
    "Sample",
    "SamplerCrop",
    "ScaleJitter",
    "Target",
    "Transform",
    "VerticalFlip",
    "ssd_augmentation",
]
