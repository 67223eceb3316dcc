"""Images with more objects than a metric or a detector looks at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.limits import beyond, detector_note, metric_note


def image(name: str, *counts: int) -> ImageRecord:
    """An image with so many objects of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    none, boxes = np.zeros(len(labels), bool), np.tile([0.0, 0.0, 8.0, 8.0], (len(labels), 1))
    return ImageRecord(Path(name), name, name, (9, 9), boxes, labels, none, none, none, np.full(len(labels), 64.0))


@pytest.fixture
def dataset() -> Dataset:
    records = (image("a.png", 3, 4), image("b.png"), image("c.png", 6, 5), image("d.png", 0, 7))
    return Dataset(Path("made"), "voc", "val", ("cat", "dog"), (1, 2), records)


@pytest.mark.parametrize(
    ("limit", "each_class", "expected"),
    [
        (11, False, None),
        (10, False, (1, 1, 25, "c.png", 11)),
        (6, False, (3, 1 + 5 + 1, 25, "c.png", 11)),
        (7, True, None),
        (6, True, (1, 1, 25, "d.png", 7)),
        (4, True, (2, 2 + 1 + 3, 25, "d.png", 7)),
    ],
)
def test_what_is_beyond_a_limit(dataset: Dataset, limit: int, each_class: bool, expected: object) -> None:
    found = beyond(dataset, limit, each_class=each_class)
    assert (None if found is None else tuple(vars(found).values())) == expected


def test_what_nobody_has_to_find_does_not_count(dataset: Dataset) -> None:
    last = dataset.records[-1]
    for name in ("difficult", "crowd"):
        ignored = replace(last, **{name: np.arange(7) < 1})
        assert beyond(replace(dataset, records=(ignored,)), 6, each_class=True) is None


def test_the_notes(dataset: Dataset) -> None:
    assert metric_note(dataset) is None
    assert detector_note(dataset, 11) is None
    many = replace(dataset, records=(image("a\n.png", 150), image("b.png", 60, 60)))
    note = metric_note(many)
    assert note is not None
    assert note.startswith(
        "1 image has more than 100 objects of one class (most: a\\n.png, 150); 50 of 270 objects are beyond this limit"
    )
    note = detector_note(many, 100)
    assert note is not None
    assert note.startswith("2 images have more than 100 objects (most: a\\n.png, 150); 70 of 270 objects are beyond")
    assert "--arguments.detections" in note
