"""What can only be seen over a whole dataset: boxes that all mean something else, images that are all black."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from singleshot.data.dataset import Dataset, Floats, Id, Problem
from singleshot.data.deep import NEARLY_BLACK, DeepRange, DeepValues
from singleshot.data.images import Decoded
from singleshot.data.limits import metric_note
from singleshot.errors import shown, some
from singleshot.structures import plain_name

_FEWEST = 3  # boxes that prove something about all
_MOST = 0.95  # of the boxes must agree
_BEYOND = 0.1  # of the boxes reach beyond their image: more than slips
_FAR = 1.1  # sides of the image: a box that is only drawn carelessly ends before
_SLACK = 1.0  # pixels


@np.errstate(over="ignore", invalid="ignore")  # boxes beyond any image are another finding
def find_in_whole(
    dataset: Dataset, found: Mapping[Path, Decoded | str], deep_range: DeepRange | None
) -> tuple[list[Problem], list[Problem]]:
    """The errors and the warnings about a dataset whose images were decoded, with the range that they are read by."""
    errors, warnings = _corners(dataset, found)
    warnings = [
        *warnings,
        *_shared_images(dataset),
        *_similar_classes(dataset),
        *_tiny_boxes(dataset),
        *([Problem("many objects", str(dataset.root), note)] if (note := metric_note(dataset)) else []),
        *_deep_images(dataset, found, deep_range),
    ]
    return errors, warnings


def _corners(dataset: Dataset, found: Mapping[Path, Decoded | str]) -> tuple[list[Problem], list[Problem]]:
    """Boxes of a COCO file that hold x1, y1, x2, y2 in place of x, y, width, height.

    An error where the file's own area proves it, being that of the corners. A warning where many boxes reach far beyond
    their images while all of them lie inside as corners. Boxes that start at 0, 0 are the same in both ways.
    """
    rows, areas, sizes = [], [], []
    for record in dataset.records:
        decoded = found.get(record.path)
        if record.xywh is None or not isinstance(decoded, Decoded):
            continue
        rows.append(record.xywh[~record.crowd])
        areas.append(record.areas[~record.crowd])
        sizes.append(np.broadcast_to(decoded.size[::-1], (len(rows[-1]), 2)))
    if not rows:
        return [], []
    boxes, area, size = np.concatenate(rows), np.concatenate(areas), np.concatenate(sizes)
    tell = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] > 0).any(axis=1)
    boxes, area, size = boxes[tell], area[tell], size[tell]
    if len(boxes) < _FEWEST:
        return [], []
    start, end = boxes[:, :2], boxes[:, 2:]
    sides = end - start
    ordered = np.asarray((sides > 0).all(axis=1))
    proved = ordered & _equal(area, sides.prod(axis=1)) & ~_equal(area, end.prod(axis=1))
    if proved.mean() >= _MOST:
        why = f"the file's own area is that of the corners for {proved.sum()} of {len(boxes)} boxes"
        return [Problem("corners as sizes", str(dataset.root), f"{why}{_AS_CORNERS}")], []
    inside = ordered & (end <= size + _SLACK).all(axis=1) & (start >= -_SLACK).all(axis=1)
    outside = (start + end > _FAR * size).any(axis=1)
    if inside.mean() >= _MOST and outside.mean() >= _BEYOND and len(boxes) >= 3 * _FEWEST:
        all_of_them = "all" if inside.all() else "nearly all"
        why = (
            f"{outside.sum()} of {len(boxes)} boxes reach far beyond their image on the right or below, and "
            f"{all_of_them} lie inside when they are read as corners"
        )
        return [], [Problem("boxes like corners", str(dataset.root), f"{why}{_AS_CORNERS}")]
    return [], []


_AS_CORNERS = (
    ". So the boxes seem to be x1, y1, x2, y2, but COCO's bbox is x, y, width, height: write [x1, y1, x2 - x1, y2 - y1]"
)


def _equal(area: Floats, other: Floats) -> np.ndarray:
    """Whether areas are equal, up to two decimals of their sides."""
    return np.abs(area - other) <= 0.01 * np.maximum(np.abs(area), np.abs(other)) + 0.01


def _tiny_boxes(dataset: Dataset) -> list[Problem]:
    """Boxes with a side below one pixel: slips of the mouse, or numbers in another unit."""
    number, first = 0, ""
    for record in dataset.records:
        boxes = record.boxes.astype(np.float32)  # as training: what is flat there is another finding
        sides = boxes[:, 2:] - boxes[:, :2]
        tiny = (sides > 0).all(axis=1) & (sides < 1).any(axis=1)
        if tiny.any() and not number:
            width, height = sides[np.flatnonzero(tiny)[0]]
            first = f"the first is in {shown(record.name)}: {width:.2g} x {height:.2g}"
        number += int(tiny.sum())
    if not number:
        return []
    total = sum(len(record.labels) for record in dataset.records)
    message = f"{number} of {total} boxes are under a pixel wide or high ({first}); coordinates are in pixels"
    return [Problem("box under a pixel", str(dataset.root), message)]


def _deep_images(dataset: Dataset, found: Mapping[Path, Decoded | str], deep_range: DeepRange | None) -> list[Problem]:
    """Images of more than 8 bits whose values do not fit the range that they are read by."""
    each = (found.get(path) for path in dict.fromkeys(record.path for record in dataset.records))
    deep = [one.deep for one in each if isinstance(one, Decoded) and one.deep is not None]
    grey, colour = [one for one in deep if not one.colour], [one for one in deep if one.colour]
    messages = [*_grey_range(grey, deep_range), *_colour_range(colour)]
    return [Problem("deep images", str(dataset.root), message) for message in messages]


def _grey_range(deep: Sequence[DeepValues], given: DeepRange | None) -> Iterable[str]:
    if not deep:
        return
    least, largest = min(one.least for one in deep), max(one.largest for one in deep)
    what = f"{len(deep)} grey images of more than 8 bits hold values from {least:g} to {largest:g}"
    if given is not None:
        if least < given.low or largest > given.high:
            yield f"{what}, and are read by the range {given}: all beyond it is cut"
        return
    ranges = sorted({one.usual for one in deep}, key=lambda one: one.high)
    if len(ranges) > 1:
        read = f"are read by different ranges, {' and '.join(map(str, ranges))}, each by its own values"
        yield f"{what}, and {read}. {_setting(least, largest)}"
        return
    darkest, brightest = ranges[0].to_8_bits(np.array([least, largest])).tolist()
    if brightest < NEARLY_BLACK or brightest - darkest < 16:
        seen = "nearly black" if brightest < NEARLY_BLACK else "nearly of one grey"
        yield (
            f"{what}, and are read by the range {ranges[0]}: they are {seen} ({darkest} to {brightest} of 255). "
            f"{_setting(least, largest)}"
        )


def _setting(least: float, largest: float) -> str:
    bits = next((bits for bits in (10, 12, 14) if least >= 0 and 1 < largest < 2**bits), None)
    both = f"[{least:g}, {largest:g}]"
    if bits is not None:
        both = f"[0, {2**bits - 1}] for {bits} bits, or {both} for what occurs"
    return f"Set what is black and white: data.deep_range (--deep-range here), such as {both}"


def _colour_range(deep: Sequence[DeepValues]) -> Iterable[str]:
    largest = max((one.largest for one in deep), default=0.0)
    if deep and largest < NEARLY_BLACK * 257:
        yield (
            f"{len(deep)} colour images of 16 bits are nearly black (at most {largest / 257:.0f} of 255): of colours "
            "the upper 8 bits are read, and data.deep_range is for grey images. Scale them and save them with 8 bits"
        )


def _shared_images(dataset: Dataset) -> list[Problem]:
    """Image files that several entries name: an image listed twice, or two names that differ in the folder only."""
    entries: dict[Path, list[str]] = {}
    for record in dataset.records:
        entries.setdefault(record.path, []).append(f"{record.name!r} (id {record.id})")
    return [
        Problem("shared image", str(path), f"{len(names)} entries have this file: {', '.join(names[:5])}")
        for path, names in entries.items()
        if len(names) > 1
    ]


def _similar_classes(dataset: Dataset) -> list[Problem]:
    """Class names that differ only in case, spaces, hyphens and underscores, or not at all but for the id."""
    numbers = np.bincount(dataset.labels(), minlength=len(dataset.class_names)).tolist()
    groups: dict[str, list[int]] = {}
    originals = [_without_id(name, key) for name, key in zip(dataset.class_names, dataset.category_ids, strict=True)]
    for label, name in enumerate(originals):
        groups.setdefault(plain_name(name), []).append(label)
    found = []
    for labels in groups.values():
        if len(labels) == 1:
            continue
        names = [dataset.class_names[label] for label in labels]
        if len({originals[label] for label in labels}) == 1:
            ids = [f"{dataset.category_ids[label]!r} ({numbers[label]} boxes)" for label in labels]
            message = (
                f"{len(labels)} categories have the name {originals[labels[0]]!r}, with the ids {some(ids, limit=10)}; "
                f"they are the classes {some(names, limit=10)}"
            )
        else:
            each = [f"{name!r} ({numbers[label]} boxes)" for name, label in zip(names, labels, strict=True)]
            message = f"{' and '.join(each)} may be one class, written differently"
        found.append(Problem("similar class names", str(dataset.root), message))
    return found


def _without_id(name: str, key: Id) -> str:
    """The name in the file of a class that was shown with its id, since several have this name."""
    while name.endswith(ending := f" ({key})"):
        name = name.removesuffix(ending)
    return name
