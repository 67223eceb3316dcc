"""What every reader returns: the images of a dataset and their truth, as the files have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset."""

    kind: str  # "broken annotation", "duplicate image id", ...: `data.check` lists them all
    where: str  # the file, with the line where there is one, or the image
    message: str  # what was found there

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True)
class ImageRecord:
    """One image and its objects, in file order. Nothing here has been decoded.

    The arrays have one row per object. A record without truth (a test server's image) has `annotated=False`.
    """

    path: Path
    name: str  # the stem in VOC, `file_name` in COCO
    id: int | str  # the image id of the files (the stem in VOC; YEAR/stem where several years are joined)
    size: tuple[int, int]  # (height, width) as the annotation says; (0, 0) when it says nothing
    boxes: Floats  # [N, 4] xyxy, exactly as the file has them (COCO: x, y, x + w, y + h)
    labels: NDArray[np.int64]  # [N] index into `Dataset.class_names`
    difficult: NDArray[np.bool_]  # [N] VOC's difficult
    crowd: NDArray[np.bool_]  # [N] COCO's iscrowd
    truncated: NDArray[np.bool_]  # [N]
    areas: Floats  # [N] COCO's area; box area where the file has none
    annotation: Path | None = None  # the file that describes it, for messages
    annotated: bool = True
    xywh: Floats | None = None  # [N, 4] COCO's own x, y, w, h: (x + w) - x need not be w again in floating point


@dataclass(frozen=True)
class Dataset:
    """An ordered set of images with one list of classes."""

    root: Path
    format: str  # "voc" or "coco"
    split: str
    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]  # the id of each class in the files (VOC: 1..K in order of names)
    records: tuple[ImageRecord, ...]
    splits: tuple[str, ...] = field(default=())  # every split that the folder offers
    problems: tuple[Problem, ...] = field(default=())  # what the reader could not take and left out of `records`
    notes: tuple[Problem, ...] = field(default=())  # what the reader left out without harm

    def __len__(self) -> int:
        return len(self.records)

    def labels(self) -> NDArray[np.int64]:
        """The class of every object of every image, image after image."""
        return np.concatenate([np.zeros(0, np.int64), *(record.labels for record in self.records)])
