"""Summary of a dataset: the objects of each class, and their sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from singleshot.data.dataset import Dataset

_SHARES = (10, 50, 90)  # percentiles of the sizes


@dataclass(frozen=True)
class ClassSummary:
    """The objects of one class. Sizes are square roots of box areas, in pixels of the image."""

    name: str
    boxes: int
    images: int  # with at least one
    small: float | None  # 10th percentile; None without boxes
    median: float | None
    large: float | None  # 90th percentile


@dataclass(frozen=True)
class Summary:
    """The classes in order, and the sizes of images (width, height) with their counts, the most frequent first."""

    classes: tuple[ClassSummary, ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]

    def to_json(self) -> dict[str, object]:
        """The summary as plain data."""
        sizes = [{"width": width, "height": height, "images": number} for (width, height), number in self.sizes]
        return {"classes": [asdict(found) for found in self.classes], "image_sizes": sizes}


def summarise(dataset: Dataset) -> Summary:
    """Count the objects of a dataset after `data.check`, which gives its records the sizes of the image files."""
    number = len(dataset.class_names)
    labels = dataset.labels()
    boxes = np.concatenate([np.zeros((0, 4)), *(record.boxes for record in dataset.records)])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    images = sum((np.bincount(np.unique(record.labels), minlength=number) for record in dataset.records),
                 np.zeros(number, np.int64))  # fmt: skip
    classes = []
    for label, name in enumerate(dataset.class_names):
        own = sides[labels == label]
        shares = [float(share) for share in np.percentile(own, _SHARES)] if len(own) else [None] * len(_SHARES)
        classes.append(ClassSummary(name, len(own), int(images[label]), *shares))
    sizes = Counter(record.size[::-1] for record in dataset.records)
    return Summary(tuple(classes), tuple(sizes.most_common()))
