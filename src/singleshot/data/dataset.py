"""What every reader returns: the images of a dataset and their ground truth, as in the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Id = int | str
ELSEWHERE = "image of another folder"
"""The kind of note about an image that was found by the last part of its name, while the name leads elsewhere."""


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
    """One image and its objects, in file order. No pixels are decoded.

    The arrays have one row per object. An image without ground truth (of a test server) has `annotated=False`.
    """

    path: Path
    name: str  # what the annotations call it: the stem in VOC, `file_name` in COCO
    id: Id  # the image id of the files, else the name; GROUP/ID where several datasets are joined (VOC2007/000005)
    size: tuple[int, int]  # (height, width) as the annotation says; (0, 0) when it says nothing
    boxes: Floats  # [N, 4] xyxy, exactly as the file has them (COCO: x, y, x + w, y + h)
    labels: NDArray[np.int64]  # [N] index into `Dataset.class_names`
    difficult: NDArray[np.bool_]  # [N] hard to recognise (VOC): neither right nor wrong to find it
    crowd: NDArray[np.bool_]  # [N] a region with many objects (COCO's iscrowd)
    truncated: NDArray[np.bool_]  # [N]
    areas: Floats  # [N] the file's own (COCO: of the mask); that of the box where it has none
    annotation: Path | None = None  # the file that describes it, for messages
    annotated: bool = True
    # [N, 4] the file's own x, y, w, h, where it has those (COCO): (x + w) - x need not be w again in floating point.
    xywh: Floats | None = None
    stem: str | None = None  # what VOC's files of detections call it; None: the name without folders and ending


@dataclass(frozen=True)
class Dataset:
    """An ordered set of images with one list of classes."""

    root: Path
    format: str  # its name in the table `data.formats.FORMATS`
    split: str
    class_names: tuple[str, ...]
    category_ids: tuple[Id, ...]  # the id of each class in the files (VOC has none: 1..K)
    records: tuple[ImageRecord, ...]
    splits: tuple[str, ...] = field(default=())  # every split that the folder offers
    problems: tuple[Problem, ...] = field(default=())  # what the reader could not take and left out of `records`
    notes: tuple[Problem, ...] = field(default=())  # what the reader left out or understood without harm
    left_out: tuple[str, ...] = field(default=())  # for each image that is missing from `records`: its kind of problem
    # Whether the images have ids in the files (COCO), which then say the order of images and classes where a metric
    # depends on it. False: they have names alone, and the order of the split and of the classes counts.
    own_ids: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def elsewhere(self) -> str | None:
        """What to say where this dataset is used, if names lead elsewhere and images of the same last part are used."""
        found = [note for note in self.notes if note.kind == ELSEWHERE]
        if not found:
            return None
        images = "1 image is" if len(found) == 1 else f"{len(found)} images are"
        return (
            f"{images} not where the name in the annotations leads, and found by the last part of the name; "
            f"the first: {found[0]}"
        )

    def labels(self) -> NDArray[np.int64]:
        """The class of every object of every image, image after image."""
        return np.concatenate([np.zeros(0, np.int64), *(record.labels for record in self.records)])
