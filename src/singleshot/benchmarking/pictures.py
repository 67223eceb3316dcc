"""The images of a measurement: files, because reading them is part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.deep import DeepRange
from singleshot.data.images import read_image

SIZE = (480, 640)  # (height, width) of generated pictures
_MADE = 8
_MOST = 32  # of a dataset


@dataclass(frozen=True)
class Pictures:
    """Image files, and how they are described."""

    paths: tuple[Path, ...]
    about: str
    made: bool

    def dataset(self) -> Dataset:
        """The same as a dataset without truth, for calibration."""
        none = np.zeros(0)
        flags = np.zeros(0, bool)
        records = (
            ImageRecord(path, path.name, n, (0, 0), np.zeros((0, 4)), none.astype(np.int64), flags, flags, flags, none)
            for n, path in enumerate(self.paths)
        )
        return Dataset(Path(), "voc", "all", (), (), tuple(records))

    def batch(self, number: int, turn: int) -> list[str]:
        """The files of one batch; each turn begins with the next file."""
        return [str(self.paths[(turn * number + i) % len(self.paths)]) for i in range(number)]


def given(paths: Sequence[str | Path]) -> Pictures:
    """The user's own files. Raises `UserError` for one that cannot be read, before anything is measured."""
    found = tuple(Path(path) for path in paths)
    for path in found:
        read_image(path)
    return Pictures(found, f"{len(found)} given image{'s' if len(found) > 1 else ''}", made=False)


def of_dataset(dataset: Dataset) -> Pictures:
    """The first images of a split."""
    paths = tuple(record.path for record in dataset.records[:_MOST])
    return Pictures(paths, f"{len(paths)} images of {dataset.root}, split {dataset.split!r}", made=False)


def generated(folder: Path) -> Pictures:
    """JPEG files that cost what photographs cost: smooth, with some noise."""
    height, width = SIZE
    paths = []
    for number in range(_MADE):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        picture = (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(picture).save(paths[-1], quality=90)
    return Pictures(tuple(paths), f"{_MADE} generated JPEG of {width}x{height}", made=True)


def pixels(pictures: Pictures, number: int, deep_range: DeepRange | None = None) -> list[NDArray[np.uint8]]:
    """The first pictures, [3, H, W]."""
    found = (read_image(path, deep_range=deep_range) for path in pictures.paths[:number])
    return [np.ascontiguousarray(picture.transpose(2, 0, 1)) for picture in found]
