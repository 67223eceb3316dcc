"""Image files as frames of a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.deep import DeepRange
from singleshot.data.images import read_reduced
from singleshot.errors import UserError
from singleshot.reduced import Seen
from singleshot.stream import Frame, read_ahead


class HasPath(Protocol):
    """What a frame can be read from: anything with the path of an image file."""

    @property
    def path(self) -> Path:
        """The image file."""


P = TypeVar("P", bound=HasPath)


def file_frames(
    sources: Iterable[P],
    *,
    workers: int = 0,
    ahead: int = 16,
    skip: Callable[[UserError], None] | None = None,
    deep_range: DeepRange | None = None,
    seen: Seen | None = None,
) -> Generator[Frame[P], None, None]:
    """Read image files in order, deep ones by `deep_range`; the other arguments are passed to `read_ahead`.

    With `seen`, large JPEG files are decoded smaller (`reduced.reduced_for`).

    Raises UserError, naming the file, for an image that cannot be read; with `skip`, the error is passed to it instead.
    """
    return read_ahead(sources, partial(_read, deep_range, seen), workers=workers, ahead=ahead, skip=skip)


def dataset_frames(
    dataset: Dataset,
    *,
    workers: int = 0,
    ahead: int = 16,
    deep_range: DeepRange | None = None,
    seen: Seen | None = None,
) -> Generator[Frame[ImageRecord], None, None]:
    """Read the images of a dataset in order, each with its record, as `file_frames`.

    Raises UserError at the call, before any work, when images are missing (the first ones are named). Raises it later
    when an image cannot be read.
    """
    missing = [record.path for record in dataset.records if not os.path.isfile(record.path)]
    if missing:
        raise UserError(
            f"{dataset.root}: {len(missing)} of {len(dataset)} images of split {dataset.split!r} are missing, "
            f"such as {', '.join(str(path) for path in missing[:3])}; restore them or take them out of the split"
        )
    return file_frames(dataset.records, workers=workers, ahead=ahead, deep_range=deep_range, seen=seen)


def planes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] as three planes [3, H, W]: a view, not a copy, and networks get the channels last."""
    return image.transpose(2, 0, 1)


def _read(deep_range: DeepRange | None, seen: Seen | None, source: P) -> Frame[P]:
    picture, reduced = read_reduced(source.path, seen, deep_range=deep_range, warn=True)
    return Frame(planes(picture), source, reduced)
