"""Collects the images, objects and problems that a reader finds, and makes one dataset of them at the end."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from singleshot import conversions
from singleshot.data.dataset import Dataset, Floats, Id, ImageRecord, Problem
from singleshot.data.normalised import refuse_normalised
from singleshot.errors import LINE, UserError, cut, some


@dataclass(frozen=True)
class _Image:
    """What is known about an image, without its objects."""

    path: Path
    name: str
    id: Id | None  # None: the name is used
    stem: str | None
    group: str
    split: str
    size: tuple[int, int]
    annotation: Path | None
    annotated: bool


class Gather:
    """The images, objects, classes and problems of the splits that are read, one split after another.

    Readers report only what is in their files. The classes are `class_names` if given, else those that the readers
    name. Objects of other classes are left out; each such class becomes one "unknown class" problem. An id that occurs
    twice is a problem too. An image that is listed twice is kept once; different images of one id are left out, since
    nobody can say whose the objects are. When several splits are joined, an image that two of them list counts as
    occurring twice. When two splits use one id for different images, `SPLIT/` is put before all ids.
    """

    def __init__(self, class_names: Sequence[str] | None = None, *, inside: Path | None = None) -> None:
        self.inside = inside  # no file that a reader finds by a name in a file may lie elsewhere; None: anywhere
        self._given = None if class_names is None else tuple(class_names)
        self._labels = {name: label for label, name in enumerate(self._given or ())}  # the first labels of objects
        self._class_ids: dict[str, Id | None] = {}  # of the classes in the data
        self._taken: set[Id] = set()  # all of these ids
        self._unordered: set[str] = set()  # the classes whose position no file gives
        self._unknown: dict[str, list[Path]] = {}  # class that is not a given one -> the file of each object
        self._images: list[_Image] = []
        self._ids: dict[tuple[str, Id], int] = {}  # of all splits: (group, id) -> the first image
        self._split_ids: dict[tuple[str, Id], int] = {}  # the same, of the split that is being read
        self._clash = False  # whether two splits use one id for different images
        self._left_out: dict[int, str] = {}  # image -> the kind of problem for which it is not in the dataset
        self._problems: dict[Problem, None] = {}  # a broken file that two splits list is reported once
        self._notes: list[Problem] = []
        self._starts: list[tuple[str, Path, int]] = []  # name, place and first object of each split
        # One entry per object, in reading order.
        self._image_of, self._label_of = array("q"), array("q")
        self._numbers, self._areas = array("d"), array("d")  # four numbers each: corners, or x, y, w, h
        self._are_sides, self._difficult = array("b"), array("b")
        self._crowd, self._truncated = array("b"), array("b")

    def begin(self, split: str, place: Path) -> None:
        """Begin the next split. `place` is its file or folder, for messages."""
        self._starts.append((split, place, len(self._image_of)))
        self._split_ids = {}

    def add_image(
        self,
        path: Path,
        name: str,
        *,
        id: Id | None = None,
        size: tuple[int, int] = (0, 0),
        annotation: Path | None = None,
        annotated: bool = True,
        stem: str | None = None,
        group: str = "",
        where: str | None = None,
    ) -> int | None:
        """Add an image. Returns its number for `add_object`, or None (and a problem) if its id was already added.

        Args:
            path: the file, or where it is expected.
            name: its name in the annotations; also its id if there is no other.
            id: the id in the files, a number or a text.
            size: (height, width) from the files; (0, 0) if they do not give it.
            annotation: the file that describes it, for messages.
            annotated: False for an image that was not labelled. An image that was labelled and has no objects is True.
            stem: its name in VOC's detection files, if that is not `name` without folders and suffix.
            group: the separate dataset that it belongs to, such as a year of VOC. When images of several groups are
                joined, `GROUP/` is put before all ids.
            where: the place that names it, for messages; None: `annotation`, or else the place of the split.
        """
        try:
            conversions.name(name)
        except conversions.Unclear as error:
            if not os.path.isfile(path):  # a disk has names that are no text; they are used as they are
                self.problem("broken annotation", where or str(annotation or path), f"the image's name {error}")
                return None
        key = (group, name if id is None else id)
        split, place, _ = self._starts[-1]
        number = len(self._images)
        found = _Image(path, name, id, stem, group, split, size, annotation, annotated)
        first = self._split_ids.setdefault(key, number)
        here = first < number  # this split has the id already
        if not here:
            first = self._ids.setdefault(key, number)
        if first < number:
            other = self._images[first]
            same = other.path == path and other.name == name
            if here or other.path == path:
                message = (
                    f"image {name!r} is listed twice"
                    if same
                    else f"{name}: the id {key[1]!r} is also the id of {other.name}"
                )
                self.problem("duplicate image id", where or str(annotation or place), message)
                if here and not same:  # the objects of this id may be those of either
                    self._images.append(found)
                    self.leave_out(first, "duplicate image id")
                    self.leave_out(number, "duplicate image id")
                return None
            self._clash = True
        self._images.append(found)
        return number

    def add_class(self, name: str, id: Id | None = None) -> None:
        """Add a class of the data.

        Classes with ids keep their order; classes without ids follow in alphabetical order. Adding a class again
        changes nothing. An id that another class already has is ignored.
        """
        if id in self._taken:
            id = None
        known = self._class_ids.get(name)
        if name not in self._class_ids and id is None:
            self._unordered.add(name)
        if known is None:
            self._class_ids[name] = id
            if id is not None:
                self._taken.add(id)
                self._unordered.discard(name)

    def add_object(
        self,
        image: int,
        class_name: str,
        box: Sequence[float],
        *,
        sides: bool = False,
        area: float | None = None,
        difficult: bool = False,
        crowd: bool = False,
        truncated: bool = False,
    ) -> None:
        """Add an object to an image, by the number that `add_image` gave.

        `box` is x1, y1, x2, y2 in pixels, or with `sides` x, y, width, height. It may have any size and need not be
        finite: the check looks at that. `area` is the area in the file; None: the area of the box.
        """
        label = self._labels.get(class_name)
        if label is None:
            if class_name not in self._class_ids:
                self.add_class(class_name)
            if self._given is not None:
                found = self._images[image]
                self._unknown.setdefault(class_name, []).append(found.annotation or found.path)
                return
            label = self._labels[class_name] = len(self._labels)
        x, y, third, fourth = box
        if area is None:
            area = third * fourth if sides else (third - x) * (fourth - y)
        self._image_of.append(image)
        self._label_of.append(label)
        self._numbers.extend((x, y, third, fourth))
        self._areas.append(area)
        self._are_sides.append(sides)
        self._difficult.append(difficult)
        self._crowd.append(crowd)
        self._truncated.append(truncated)

    def problem(self, kind: str, where: str, message: str, *, image: int | None = None) -> None:
        """Report what is wrong and was left out: a kind of `data.check.ERRORS`, the place, and what was found.

        `image` is the number of the image that it belongs to. The dataset is made without this image: without one of
        its objects it would teach, and count, the object as background.
        """
        self._problems[Problem(kind, where, cut(message, LINE))] = None
        if image is not None:
            self.leave_out(image, kind)

    def leave_out(self, image: int, kind: str) -> None:
        """Leave an image out of the dataset, for a kind of problem that is reported elsewhere."""
        self._left_out.setdefault(image, kind)

    def note(self, kind: str, where: str, message: str) -> None:
        """Report what was left out without harm: a kind of `data.check.WARNINGS`."""
        self._notes.append(Problem(kind, where, cut(message, LINE)))

    def dataset(self, root: Path, format: str, splits: Sequence[str]) -> Dataset:
        """Make one dataset of everything that was added.

        Args:
            root: the path that was opened.
            format: the format's name.
            splits: all splits that the path offers.

        Raises:
            UserError: the boxes of a split are divided by the image size; a class has no plain name.
        """
        if self._given is not None:  # the given classes with objects are classes of the data too
            for label in set(self._label_of):
                self.add_class(self._given[label])
        found = self._found_classes()
        classes = found if self._given is None else self._given
        for name in classes:
            try:
                conversions.name(name)
            except conversions.Unclear as error:
                raise UserError(f"{root}: a class name {error}") from error
        several = len({image.group for image in self._images}) > 1
        return Dataset(
            root=root,
            format=format,
            split="+".join(split for split, _, _ in self._starts),
            class_names=classes,
            category_ids=self._category_ids(classes),
            records=self._records(classes, several),
            splits=tuple(splits),
            problems=(*self._problems, *self._unknown_classes(found)),
            notes=tuple(self._notes),
            left_out=tuple(self._left_out.values()),
            own_ids=not (several or self._clash) and all(image.id is not None for image in self._images),
        )

    def _found_classes(self) -> tuple[str, ...]:
        """The classes of the data, in order."""
        return (*(name for name in self._class_ids if name not in self._unordered), *sorted(self._unordered))

    def _category_ids(self, classes: tuple[str, ...]) -> tuple[Id, ...]:
        """The ids in the files; a class without one gets a number that the files do not use."""
        ids = [self._class_ids.get(name) for name in classes]
        unused = max([0, *(key for key in self._class_ids.values() if isinstance(key, int))]) + 1
        return tuple(unused + label if key is None else key for label, key in enumerate(ids))

    def _unknown_classes(self, found: tuple[str, ...]) -> list[Problem]:
        problems = []
        expected = f"expected {some(self._given or (), limit=30)}; the data has {some(found, limit=30)}"
        for name, places in sorted(self._unknown.items()):
            files = len(set(places))
            count = f"{len(places)} boxes" + (f" in {files} files" if files > 1 else "")
            message = f"class {name!r} ({count}) is not in the class list: {expected}"
            problems.append(Problem("unknown class", str(places[0]), message))
        return problems

    def _records(self, classes: tuple[str, ...], several: bool) -> tuple[ImageRecord, ...]:
        image_of = np.array(self._image_of, np.int64)
        order = np.argsort(image_of, kind="stable")  # the order of the files within an image
        ends = np.cumsum(np.bincount(image_of, minlength=len(self._images))).tolist()
        final = {name: label for label, name in enumerate(classes)}
        labels = np.array([final[name] for name in self._labels], np.int64)[np.array(self._label_of, np.int64)]
        boxes, xywh = self._boxes()
        boxes, labels, areas = boxes[order], labels[order], np.array(self._areas, np.float64)[order]
        xywh = None if xywh is None else xywh[order]
        difficult, crowd, truncated = (
            _flags(column)[order] for column in (self._difficult, self._crowd, self._truncated)
        )
        records, start = [], 0
        for number, (image, end) in enumerate(zip(self._images, ends, strict=True)):
            if number in self._left_out:
                start = end
                continue
            key = image.name if image.id is None else image.id
            before = image.split if self._clash else image.group if several else ""
            records.append(
                ImageRecord(
                    path=image.path,
                    name=image.name,
                    id=f"{before}/{key}" if before else key,
                    size=image.size,
                    boxes=boxes[start:end],
                    labels=labels[start:end],
                    difficult=difficult[start:end],
                    crowd=crowd[start:end],
                    truncated=truncated[start:end],
                    areas=areas[start:end],
                    annotation=image.annotation,
                    annotated=image.annotated,
                    xywh=None if xywh is None else xywh[start:end],
                    stem=image.stem,
                )
            )
            start = end
        return tuple(records)

    def _boxes(self) -> tuple[Floats, Floats | None]:
        """All boxes as corners [N, 4], and as x, y, w, h if the files have those."""
        numbers = np.array(self._numbers, np.float64).reshape(-1, 4)
        sides = _flags(self._are_sides)
        boxes = numbers.copy()
        with np.errstate(invalid="ignore"):  # infinity minus infinity: the check reports it
            boxes[sides, 2:] += boxes[sides, :2]
            starts = [start for _, _, start in self._starts]
            for (_, place, start), end in zip(self._starts, [*starts[1:], len(boxes)], strict=True):
                refuse_normalised(place, boxes[start:end])
            if not sides.any():
                return boxes, None
            numbers[~sides, 2:] -= numbers[~sides, :2]
        return boxes, numbers


def _flags(column: array[int]) -> NDArray[np.bool_]:
    return np.array(column, np.int8).astype(np.bool_)
