"""Limits that cut truth off: where an image has more objects than a metric or a detector looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from singleshot.data.dataset import Dataset
from singleshot.errors import shown

COCO_DETECTIONS = 100
"""COCO's metric counts this many detections of a class in an image, the best first."""


@dataclass(frozen=True)
class Beyond:
    """How much of a dataset is beyond a limit."""

    images: int  # with more objects than the limit
    lost: int  # objects beyond it, over these images
    objects: int  # of the whole dataset
    name: str  # the image with the most
    most: int  # its objects

    def sentence(self, limit: int, of_what: str) -> str:
        """The facts: `2 images have more than 100 objects of one class (most: a.png, 150); 60 of 310 objects ...`."""
        have = "1 image has" if self.images == 1 else f"{self.images} images have"
        return (
            f"{have} more than {limit} {of_what} (most: {shown(self.name)}, {self.most}); "
            f"{self.lost} of {self.objects} objects are beyond this limit"
        )


def beyond(dataset: Dataset, limit: int, *, each_class: bool) -> Beyond | None:
    """Count the objects beyond a limit for each image, or for each class of each image; None if there are none.

    Difficult objects and crowds do not count, since nobody has to find them.
    """
    images = lost = objects = most = 0
    name = ""
    for record in dataset.records:
        counted = record.labels[~(record.difficult | record.crowd)]
        objects += len(counted)
        if len(counted) <= limit:
            continue
        numbers = np.bincount(counted) if each_class else np.array([len(counted)])
        over = int(np.maximum(numbers - limit, 0).sum())
        if over:
            images, lost = images + 1, lost + over
            if numbers.max() > most:
                name, most = record.name, int(numbers.max())
    return Beyond(images, lost, objects, name, most) if images else None


def metric_note(dataset: Dataset) -> str | None:
    """What to say if COCO's metric cannot count all objects of a dataset, however good a detector is."""
    found = beyond(dataset, COCO_DETECTIONS, each_class=True)
    if found is None:
        return None
    return (
        f"{found.sentence(COCO_DETECTIONS, 'objects of one class')}: COCO's metric counts the best {COCO_DETECTIONS} "
        "detections of a class in an image, so AP and AR stay below 100 even if every object is found. VOC's has "
        "no such limit"
    )


def detector_note(dataset: Dataset, limit: int) -> str | None:
    """What to say if a detector that keeps `limit` detections of an image cannot find all objects of a dataset."""
    found = beyond(dataset, limit, each_class=False)
    if found is None:
        return None
    return (
        f"{found.sentence(limit, 'objects')}: the detector keeps the best {limit} detections of an image, and cannot "
        "find these. Its argument `detections` sets the number (in training --arguments.detections)"
    )
