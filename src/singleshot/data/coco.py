"""Reader of COCO JSON: one file per split with `images`, `annotations` and `categories` (Lin et al., ECCV 2014)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from singleshot.data.cocojson import find_files, load, split_name
from singleshot.data.dataset import Dataset, ImageRecord, Problem
from singleshot.data.folders import files
from singleshot.data.splits import choose_split
from singleshot.errors import UserError

Id = int | str


def find_splits(path: Path) -> tuple[str, ...]:
    """The splits that a folder, or one JSON file, offers."""
    return tuple(find_files(path)) if path.is_dir() else (split_name(path),)


def read_coco(
    path: Path, *, split: str | None = None, prefer: Sequence[str] = (), class_names: Sequence[str] | None = None
) -> Dataset:
    """Read one COCO JSON file, or the file of one split in a folder.

    Image and category ids may be any numbers or strings with any gaps; labels index `class_names`, the categories in
    the order of the file, and `category_ids` has their ids. `iscrowd` and `area` may be missing (0, and w * h);
    categories that only the annotations name are called by their ids. Images are looked for in the usual folders and
    not opened. Entries that cannot be read are in `Dataset.problems`. Where the file has no annotations at all (test
    servers' image lists) every record has `annotated=False`.

    Raises UserError for broken JSON (with line and column), JSON of another form, boxes divided by the image size,
    a wrong split and an empty one.
    """
    found = find_files(path) if path.is_dir() else {split_name(path): path}
    if not found:
        raise UserError(f"{path}: no COCO data; expected JSON files such as annotations/instances_train2017.json")
    chosen = choose_split(list(found), split, prefer, str(path))
    source = found[chosen]
    reader = _Reader(source, load(source), class_names)
    reader.read_annotations()
    finder = ImageFinder(source, chosen)
    records = tuple(reader.record(image, finder) for image in reader.images.values())
    if not records and not reader.problems:
        raise UserError(f"{source}: split {chosen!r} is empty: its list of images is empty.")
    _refuse_normalised(source, records)
    return Dataset(
        root=path,
        format="coco",
        split=chosen,
        class_names=reader.classes,
        category_ids=reader.category_ids,
        records=records,
        splits=tuple(found),
        problems=(*reader.problems, *reader.unknown_classes()),
        notes=tuple(reader.notes),
    )


@dataclass
class _Objects:
    """The annotations of one image, as they are read."""

    xywh: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)


class _Reader:
    """One parsed file."""

    def __init__(self, source: Path, content: dict[str, Any], class_names: Sequence[str] | None) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.annotated = "annotations" in content
        self.annotations: list[Any] = content.get("annotations", [])
        self.images = self._images(content["images"])
        self.objects: dict[Id, _Objects] = {key: _Objects() for key in self.images}
        self.unknown: Counter[Id] = Counter()
        self._set_classes(self._categories(content.get("categories")), class_names)

    def _problem(self, kind: str, where: str, message: str) -> None:
        self.problems.append(Problem(kind, f"{self.source}: {where}", message))

    def _images(self, entries: list[Any]) -> dict[Id, dict[str, Any]]:
        images: dict[Id, dict[str, Any]] = {}
        for number, entry in enumerate(entries):
            where = f"images[{number}]"
            if not isinstance(entry, dict):
                self._problem("broken annotation", where, f"expected an object, got {_short(entry)}")
                continue
            key = identifier(entry.get("id"))
            name = file_name(entry)
            if key is None or name is None:
                missing = "an id (number or string)" if key is None else "a file_name"
                self._problem("broken annotation", where, f"an image needs {missing}, got {_short(entry)}")
            elif key in images:
                other = images[key]["file_name"]
                self._problem("duplicate image id", where, f"{name}: the id {key!r} is that of {other}, too")
            else:
                images[key] = {**entry, "file_name": name}
        return images

    def _categories(self, entries: Any) -> dict[Id, str]:
        """The name of each category id, in file order; names that occur twice get their id appended."""
        if entries is None:  # then the annotations alone say which classes there are
            ids = {identifier(entry.get("category_id")) for entry in self.annotations if isinstance(entry, dict)}
            ordered = sorted((key for key in ids if key is not None), key=lambda key: (isinstance(key, str), key))
            return {key: str(key) for key in ordered}
        names: dict[Id, str] = {}
        for number, entry in enumerate(entries):
            key = identifier(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("name", str(key)) if isinstance(entry, dict) else None
            if key is None or not isinstance(name, str):
                self._problem("broken annotation", f"categories[{number}]", f"no id or name: {_short(entry)}")
            elif key in names:
                self._problem("broken annotation", f"categories[{number}]", f"the id {key!r} is that of {names[key]!r}")
            else:
                names[key] = name
        count = Counter(names.values())
        return {key: name if count[name] == 1 else f"{name} ({key})" for key, name in names.items()}

    def _set_classes(self, categories: dict[Id, str], class_names: Sequence[str] | None) -> None:
        self.categories = categories
        self.classes = tuple(categories.values()) if class_names is None else tuple(class_names)
        label_of = {name: label for label, name in enumerate(self.classes)}
        self.labels = {key: label_of[name] for key, name in categories.items() if name in label_of}
        id_of = {label: key for key, label in self.labels.items()}
        # Classes of a given list that the file does not have get numbers that it does not use.
        unused = max([0, *(key for key in categories if isinstance(key, int))]) + 1
        self.category_ids = tuple(id_of.get(label, unused + label) for label in range(len(self.classes)))

    def read_annotations(self) -> None:
        orphans = 0
        for number, entry in enumerate(self.annotations):
            message = self._read_annotation(entry)
            if message is None:
                continue
            if message == "":
                orphans += 1
            else:
                self._problem("broken annotation", f"annotations[{number}]", message)
        if orphans and orphans == len(self.annotations):
            known, named = next(iter(self.images), None), self.annotations[0]["image_id"]
            raise UserError(
                f"{self.source}: no annotation belongs to an image: image ids are such as {known!r}, the annotations "
                f"have image_id such as {named!r}. They must be the same, type included."
            )
        if orphans:
            message = f"{orphans} annotations have an image_id that is not in the list of images"
            self.notes.append(Problem("annotation without image", str(self.source), message))

    def _read_annotation(self, entry: Any) -> str | None:
        """Add one object to its image. Returns what is wrong with it; "" when its image is not in the list."""
        if not isinstance(entry, dict):
            return f"expected an object, got {_short(entry)}"
        image = identifier(entry.get("image_id"))
        if image is None:
            return f"image_id is {_short(entry.get('image_id'))}, expected a number or a string"
        if image not in self.objects:
            return ""
        box = entry.get("bbox")
        sides = [side for side in map(_number, box) if side is not None] if isinstance(box, list) else []
        if not isinstance(box, list) or len(box) != 4 or len(sides) != 4:
            return f"image {self.images[image]['file_name']}: bbox is {_short(box)}, expected [x, y, width, height]"
        category = identifier(entry.get("category_id"))
        if category is None:
            value = _short(entry.get("category_id"))
            return f"image {self.images[image]['file_name']}: category_id is {value}, expected a number or a string"
        if category not in self.labels:
            self.unknown[category] += 1
            return None
        area = _number(entry.get("area"))
        objects = self.objects[image]
        objects.xywh.append(sides)
        objects.labels.append(self.labels[category])
        objects.crowd.append(bool(entry.get("iscrowd", 0)))
        objects.areas.append(sides[2] * sides[3] if area is None else area)
        return None

    def unknown_classes(self) -> list[Problem]:
        listed = ", ".join(self.classes)
        findings = []
        for key, count in self.unknown.items():
            if key in self.categories:
                data = ", ".join(self.categories.values())
                message = f"class {self.categories[key]!r} ({count} boxes) is not in the class list: expected {listed}"
                message += f"; the data has {data}"
            else:
                message = f"category_id {key!r} ({count} boxes) is not among the categories: {listed}"
            findings.append(Problem("unknown class", str(self.source), message))
        return findings

    def record(self, image: dict[str, Any], finder: ImageFinder) -> ImageRecord:
        key = identifier(image["id"])
        assert key is not None  # `_images` took none without
        objects = self.objects[key]
        xywh = np.array(objects.xywh, np.float64).reshape(-1, 4)
        none = np.zeros(len(xywh), np.bool_)
        return ImageRecord(
            path=finder.path(image["file_name"]),
            name=image["file_name"],
            id=key,
            size=(_side(image.get("height")), _side(image.get("width"))),
            boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
            labels=np.array(objects.labels, np.int64),
            difficult=none,
            crowd=np.array(objects.crowd, np.bool_),
            truncated=none,
            areas=np.array(objects.areas, np.float64),
            annotation=self.source,
            annotated=self.annotated,
            xywh=xywh,
        )


class ImageFinder:
    """Finds images by name in the folders where they usually are, listing each folder once."""

    def __init__(self, source: Path, split: str) -> None:
        here = source.absolute().parent
        near, far = [here, here.parent], [here.parent.parent, here.parent.parent.parent]
        inner = [split, f"images/{split}", f"{split}/images", "images", "JPEGImages", "Images", "img", "imgs", "data"]
        places = [root / name for root in near for name in inner]
        self.expected = next((place for place in places if place.is_dir()), here)
        # Far folders count only below a name, so that no foreign folder is taken for ours.
        places += [*near, *(root / name for root in far for name in inner)]
        self.folders = [place for place in dict.fromkeys(places) if place.is_dir()]
        self.tables: dict[str, dict[str, Path]] = {}

    def path(self, name: str) -> Path:
        """The image of this name; where it is not found, the place where it is expected."""
        parent, _, base = name.replace("\\", "/").rpartition("/")
        for inner in dict.fromkeys((parent, "")):  # with its folders, then without
            folder = self._table(inner).get(base)
            if folder is not None:
                return folder / base
        return self.expected / parent / base

    def _table(self, inner: str) -> dict[str, Path]:
        """Which folder each file lies in, over all places; the first place counts."""
        if inner not in self.tables:
            table: dict[str, Path] = {}
            for place in self.folders:
                for name in files(place / inner):
                    table.setdefault(name, place / inner)
            self.tables[inner] = table
        return self.tables[inner]


def _refuse_normalised(source: Path, records: Sequence[ImageRecord]) -> None:
    boxes = np.concatenate([record.boxes for record in records]) if records else np.zeros((0, 4))
    fractional = np.any((boxes > 0) & (boxes < 1))
    if len(boxes) and fractional and np.all((boxes >= 0) & (boxes <= 1 + 1e-6)):
        raise UserError(
            f"{source}: all {len(boxes)} boxes lie within [0, 1]: they are normalised (divided by the image size). "
            "COCO's boxes are in pixels: [x, y, width, height]; multiply them by the sizes of the images."
        )


def identifier(value: Any) -> Id | None:
    """An id as the file has it; 3.0 is 3. None for what cannot be an id."""
    if type(value) is int or type(value) is str:  # True is no id, and isinstance would take it for 1
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def file_name(entry: dict[str, Any]) -> str | None:
    """The image's file as an entry of `images` names it, a path below the images' folder; None where it names none."""
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):  # LVIS: .../val2017/000000397133.jpg
        name = "/".join(entry["coco_url"].split("/")[-2:])
    return name if isinstance(name, str) and name else None


def _number(value: Any) -> float | None:
    """A number as float; None for anything else. A number beyond all floats is infinite."""
    if type(value) is float:  # nearly always: there are millions of them
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _side(value: Any) -> int:
    number = _number(value)
    return round(number) if number is not None and math.isfinite(number) else 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
