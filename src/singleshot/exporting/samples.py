"""Images for calibration and comparison: those of a dataset, or generated ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.images import read_image
from singleshot.data.shapes import draw_shapes
from singleshot.engines.exported import ExportedDetector
from singleshot.engines.quantise.quantiser import Feed
from singleshot.errors import UserError
from singleshot.spec import Spec

CALIBRATION_IMAGES = 150
"""The most images that ranges of values are measured on; more change nothing that can be measured."""

COMPARED_IMAGES = 24
"""Images that are compared where no data is given."""

_SIDES = (320, 400, 256, 480)  # of generated images
Picture = NDArray[Any]


class CalibrationImages:
    """Images of a dataset as a graph with this spec takes them; read again each time, so they need no memory."""

    def __init__(self, dataset: Dataset, spec: Spec) -> None:
        self._records = spread(dataset.records, CALIBRATION_IMAGES)
        self._feeds: list[dict[str, NDArray[Any]]] = []
        self._padded = spec.preprocess is not None and spec.preprocess.padded
        # A model that stores what it is given: the feeds are those that the real one gets.
        self._model = ExportedDetector(replace(spec, outputs="detections"), self._taken)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Feed]:
        for record in self._records:
            self._model.find([read_image(record.path, deep_range=self._model.deep_range, warn=True)])
            yield self._feeds.pop()

    def _taken(self, images: Picture, limits: NDArray[np.float32]) -> Any:
        feed = {"images": np.array(images)}
        self._feeds.append({**feed, "limits": np.array(limits)} if self._padded else feed)
        number = len(images)
        return (
            np.zeros((number, 1, 4), np.float32),
            np.zeros((number, 1), np.float32),
            np.zeros((number, 1), np.int64),
        )


def spread(records: Sequence[ImageRecord], most: int) -> list[ImageRecord]:
    """At most so many records, spread evenly over all; always the same ones."""
    if len(records) <= most:
        return list(records)
    return [records[place * len(records) // most] for place in range(most)]


def generated(number: int) -> list[Picture]:
    """Pictures with shapes on a textured ground, wide and tall ones; always the same."""
    random = np.random.default_rng(0)
    made = []
    for place in range(number):
        side = _SIDES[place % len(_SIDES)]
        picture = draw_shapes(random, side).image
        cut = side // 4 * (place % 3 == 0)
        made.append(np.ascontiguousarray(picture[cut:] if place % 2 else picture[:, cut:]))
    return made


def read(records: Sequence[ImageRecord], deep_range: Any) -> list[Picture]:
    """The pictures of records. Raises `UserError` for one that cannot be read."""
    return [read_image(record.path, deep_range=deep_range, warn=True) for record in records]


def some(dataset: Dataset) -> Dataset:
    """The dataset, refused if it has no image."""
    if not len(dataset):
        raise UserError(f"{dataset.root}: split {dataset.split!r} has no images; choose another split")
    return dataset
