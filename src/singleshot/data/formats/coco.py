"""COCO JSON: one file per split with `images`, `annotations` and `categories` (Lin et al., ECCV 2014).

Image and category ids may be any numbers or texts, with any gaps. Classes are the categories in file order. `iscrowd`
and `area` may be missing (then 0, and w * h). Categories that only the annotations name get their ids as names. Images
are searched for in the usual folders. If the file has no annotations at all (a test server's list of images), every
image has `annotated=False`.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from singleshot.data.dataset import Id, ImageRecord
from singleshot.data.find_images import ImageFinder
from singleshot.data.formats.cocojson import find_files, load, split_name
from singleshot.data.formats.format import Format, Split
from singleshot.data.gather import Gather
from singleshot.errors import UserError, short


def find(path: Path) -> list[Split]:
    """The COCO files of a folder, or the one file that is given."""
    if path.is_dir():
        return [Split(name, file) for name, file in find_files(path).items()]
    # No other format here reads JSON files. So every one counts as COCO, and the message can say what is wrong with it.
    return [Split(split_name(path), path)] if path.suffix.lower() == ".json" else []


def read(split: Split, gather: Gather) -> None:
    """Read one file. Raises UserError for broken JSON (with line and column) and for JSON of another structure."""
    reader = _Reader(split, load(split.place), gather)
    reader.read_images()
    reader.read_categories()
    reader.read_annotations()


def lists(splits: Sequence[Split], parts: Mapping[str, Sequence[ImageRecord]]) -> dict[Path, bytes]:
    """For each part a file `instances_PART.json` beside the file that is divided, with its entries unchanged."""
    if len(splits) > 1:
        raise UserError(
            f"{splits[0].place}: only one file can be divided at a time, got "
            f"{', '.join(split.name for split in splits)}; name one of them with --split"
        )
    source = splits[0].place
    content = load(source)
    places = {record.id: record.path for records in parts.values() for record in records}
    found = {}
    for part, records in parts.items():
        file = source.with_name(f"instances_{part}.json")
        ids = {record.id for record in records}
        finder = ImageFinder(file, part)
        images = [_as_found(image, places, finder, file) for image in _entries(content, "images", "id", ids)]
        changed: dict[str, Any] = {"images": images}
        if "annotations" in content:  # a missing list means: not labelled; an empty list means: no objects
            changed["annotations"] = _entries(content, "annotations", "image_id", ids)
        found[file] = json.dumps({**content, **changed}).encode()
    return found


def _entries(content: dict[str, Any], name: str, key: str, ids: set[Id]) -> list[dict[str, Any]]:
    """The entries of these images; anything that is not a valid entry is left out."""
    return [entry for entry in content[name] if isinstance(entry, dict) and _identifier(entry.get(key)) in ids]


def _as_found(image: dict[str, Any], places: dict[Id, Path], finder: ImageFinder, file: Path) -> dict[str, Any]:
    """The entry of an image. If the new split's file would not find the image, the entry gets the path to it."""
    place = places[_identifier(image["id"])]  # type: ignore[index]  # only chosen images get here
    if finder.path(_file_name(image) or "") == place:
        return image
    return {**image, "file_name": Path(os.path.relpath(place, file.absolute().parent)).as_posix()}


class _Reader:
    """One parsed file, and what has been read from it so far."""

    def __init__(self, split: Split, content: dict[str, Any], gather: Gather) -> None:
        self.source = split.place
        self.content = content
        self.gather = gather
        self.finder = ImageFinder(split.place, split.name)
        self.annotations: list[Any] = content.get("annotations", [])
        # id -> the file's name, and the number in `gather`; None if another split already has the image.
        self.images: dict[Id, tuple[str, int | None]] = {}
        self.categories: dict[Id, str] = {}  # id -> name of the class

    def _problem(self, where: str, message: str) -> None:
        self.gather.problem("broken annotation", f"{self.source}: {where}", message)

    def read_images(self) -> None:
        """Add the images."""
        annotated = "annotations" in self.content
        for number, entry in enumerate(self.content["images"]):
            where = f"images[{number}]"
            if not isinstance(entry, dict):
                self._problem(where, f"expected an object, got {short(entry)}")
                continue
            key, name = _identifier(entry.get("id")), _file_name(entry)
            if key is None or name is None:
                missing = "an id (number or string)" if key is None else "a file_name"
                self._problem(where, f"an image needs {missing}, got {short(entry)}")
                continue
            image = self.gather.add_image(
                self.finder.path(name),
                name,
                id=key,
                size=(_side(entry.get("height")), _side(entry.get("width"))),
                annotation=self.source,
                annotated=annotated,
                where=f"{self.source}: {where}",
            )
            self.images.setdefault(key, (name, image))

    def read_categories(self) -> None:
        """Add the classes in file order. Names that occur twice get their id appended."""
        entries = self.content.get("categories")
        if entries is None:  # then only the annotations name the classes
            ids = {_identifier(entry.get("category_id")) for entry in self.annotations if isinstance(entry, dict)}
            ordered = sorted((key for key in ids if key is not None), key=lambda key: (isinstance(key, str), key))
            entries = [{"id": key, "name": str(key)} for key in ordered]
        names: dict[Id, str] = {}
        for number, entry in enumerate(entries):
            key = _identifier(entry.get("id")) if isinstance(entry, dict) else None
            name = entry.get("name", str(key)) if isinstance(entry, dict) else None
            if key is None or not isinstance(name, str):
                self._problem(f"categories[{number}]", f"a category needs an id and a name, got {short(entry)}")
            elif key in names:
                self._problem(f"categories[{number}]", f"the id {key!r} is also the id of {names[key]!r}")
            else:
                names[key] = name
        count = Counter(names.values())
        for key, name in names.items():
            self.categories[key] = name if count[name] == 1 else f"{name} ({key})"
            self.gather.add_class(self.categories[key], key)

    def read_annotations(self) -> None:
        """Add the objects."""
        orphans = 0
        unknown: Counter[Id] = Counter()
        for number, entry in enumerate(self.annotations):
            message = self._read_annotation(entry, unknown)
            if message is None:
                continue
            if message == "":
                orphans += 1
            else:
                self._problem(f"annotations[{number}]", message)
        for key, count in unknown.items():
            listed = ", ".join(self.categories.values()) or "the file has none"
            message = f"category_id {key!r} ({count} boxes) is not in the categories: {listed}"
            self.gather.problem("unknown class", str(self.source), message)
        if orphans and orphans == len(self.annotations):
            known, named = next(iter(self.images), None), self.annotations[0]["image_id"]
            raise UserError(
                f"{self.source}: no annotation belongs to an image. An image has the id {known!r}, for example, and an "
                f"annotation has the image_id {named!r}. Make the ids the same, also in type (number or string)."
            )
        if orphans:
            message = f"{orphans} annotations have an image_id that is not in the list of images"
            self.gather.note("annotation without image", str(self.source), message)

    def _read_annotation(self, entry: Any, unknown: Counter[Id]) -> str | None:
        """Add one object to its image. Returns what is wrong with it, "" if its image is not listed, else None."""
        if not isinstance(entry, dict):
            return f"expected an object, got {short(entry)}"
        key = _identifier(entry.get("image_id"))
        if key is None:
            return f"image_id is {short(entry.get('image_id'))}, expected a number or a string"
        if key not in self.images:
            return ""
        name, image = self.images[key]
        box = entry.get("bbox")
        sides = [side for side in map(_number, box) if side is not None] if isinstance(box, list) else []
        if not isinstance(box, list) or len(box) != 4 or len(sides) != 4:
            return f"image {name}: bbox is {short(box)}, expected [x, y, width, height]"
        category = _identifier(entry.get("category_id"))
        if category is None:
            return f"image {name}: category_id is {short(entry.get('category_id'))}, expected a number or a string"
        if category not in self.categories:
            unknown[category] += 1
        elif image is not None:
            self.gather.add_object(
                image,
                self.categories[category],
                sides,
                sides=True,
                area=_number(entry.get("area")),
                crowd=bool(entry.get("iscrowd", 0)),
            )
        return None


def _identifier(value: Any) -> Id | None:
    """An id as in the file; 3.0 becomes 3. None if the value cannot be an id."""
    if type(value) is int or type(value) is str:  # True is not an id, but isinstance would accept it as 1
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _file_name(entry: dict[str, Any]) -> str | None:
    """The file that an entry of `images` names, a path below the images' folder; None if it names none."""
    name = entry.get("file_name")
    if name is None and isinstance(entry.get("coco_url"), str):  # LVIS: .../val2017/000000397133.jpg
        name = "/".join(entry["coco_url"].split("/")[-2:])
    return name if isinstance(name, str) and name else None


def _number(value: Any) -> float | None:
    """A number as float; None for anything else. A number too large for a float becomes infinite."""
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


FORMAT = Format(
    title="COCO",
    looks_like="a folder with COCO JSON files (annotations/instances_train2017.json and images), or a COCO JSON file",
    holds=("boxes", "crowd regions", "areas", "ids", "image sizes", "splits"),
    find=find,
    read=read,
    lists=lists,
)
