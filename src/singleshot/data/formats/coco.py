"""COCO JSON: one file per split with `images`, `annotations` and `categories` (Lin et al., ECCV 2014).

Image and category ids may be any numbers or texts, with any gaps; `"7"` is found where only 7 is known. Classes are the
categories in file order. Categories that only the annotations name get their ids as names. `iscrowd` and `area` may be
missing (then 0, and w * h). An annotation with polygons and no `bbox` gets the box around them. If an annotation cannot
be used, its image is left out. Images are searched for in the usual folders. If the file has no annotations at all (a
test server's list of images), every image has `annotated=False`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from singleshot import conversions
from singleshot.conversions import FARTHEST, Unclear, flag, identifier, joined, number
from singleshot.data.dataset import ELSEWHERE, Id, ImageRecord
from singleshot.data.find_images import ImageFinder
from singleshot.data.formats.cocojson import find_files, load, split_name
from singleshot.data.formats.format import Format, Split
from singleshot.data.gather import Gather
from singleshot.errors import UserError, short, shown, some

T = TypeVar("T")


def find(path: Path) -> list[Split]:
    """The COCO files of a folder, or the one file that is given."""
    if path.is_dir():
        return [Split(name, file) for name, file in find_files(path).items()]
    # No other format here reads JSON files. So every one counts as COCO, and the message can say what is wrong with it.
    return [Split(split_name(path), path)] if path.suffix.lower() == ".json" else []


def read(split: Split, gather: Gather) -> None:
    """Read one file. Raises UserError for broken JSON (with line and column) and for JSON of another structure."""
    content, twice = load(split.place)
    for message in twice:
        gather.problem("key twice", str(split.place), message)
    reader = _Reader(split, content, gather)
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
    content, _ = load(source)
    places = {record.id: record.path for records in parts.values() for record in records}
    found = {}
    for part, records in parts.items():
        file = source.with_name(f"instances_{part}.json")
        ids = {record.id for record in records}
        finder = ImageFinder(file, part, inside=None)
        entries = _entries(content, "images", "id", ids, places)
        images = [_as_found(image, places, finder, file) for image in entries]
        changed: dict[str, Any] = {"images": [image for image in images if image is not None]}
        if "annotations" in content:  # a missing list means: not labelled; an empty list means: no objects
            changed["annotations"] = _entries(content, "annotations", "image_id", ids, places)
        try:
            found[file] = json.dumps({**content, **changed}).encode()
        except RecursionError as error:
            raise UserError(f"{source}: lists or objects are nested too deeply to be written again") from error
    return found


def _entries(
    content: dict[str, Any], name: str, key: str, ids: set[Id], known: Mapping[Id, Any]
) -> list[dict[str, Any]]:
    """The entries of the images `ids`, of all that are `known`; anything that is not a valid entry is left out."""
    return [entry for entry in content[name] if isinstance(entry, dict) and joined(_id(entry, key), known) in ids]


def _as_found(image: dict[str, Any], places: dict[Id, Path], finder: ImageFinder, file: Path) -> dict[str, Any] | None:
    """The entry of an image. If the new split's file would not find the image, the entry gets the path to it."""
    try:
        name = _file_name(image)
    except Unclear:  # a second entry of this id, which was not read
        return None
    place = places[identifier(image["id"])]  # only chosen images get here
    if finder.path(name) == place:
        return image
    return {**image, "file_name": Path(os.path.relpath(place, file.absolute().parent)).as_posix()}


class _Reader:
    """One parsed file, and what has been read from it so far."""

    def __init__(self, split: Split, content: dict[str, Any], gather: Gather) -> None:
        self.source = split.place
        self.content = content
        self.gather = gather
        self.finder = ImageFinder(split.place, split.name, gather.inside)
        self.annotations: list[Any] = content.get("annotations", [])
        # id -> the file's name, and the number in `gather`; None if another split already has the image.
        self.images: dict[Id, tuple[str, int | None]] = {}
        self.categories: dict[Id, str] = {}  # id -> name of the class
        self.orphans = 0  # annotations of images that are not listed
        self.polygons = 0  # annotations without bbox, whose polygons give it
        self.unknown: Counter[Id] = Counter()  # category ids that are not listed -> annotations
        self.retyped: dict[str, tuple[int, Id]] = {}  # key -> how often its id has another type, and the first of them

    def _problem(self, where: str, message: str, kind: str = "broken annotation") -> None:
        self.gather.problem(kind, f"{self.source}: {where}", message)

    def read_images(self) -> None:
        """Add the images."""
        annotated = "annotations" in self.content
        for place, entry in enumerate(self.content["images"]):
            where = f"images[{place}]"
            if not isinstance(entry, dict):
                self._problem(where, f"expected an object, got {short(entry)}")
                continue
            try:
                key, name = _known(identifier, entry, "id"), _file_name(entry)
            except Unclear as error:
                self._problem(where, f"an image needs an id (number or string) and a file_name, but {error}")
                continue
            path = self.finder.path(name)
            image = self.gather.add_image(
                Path(name) if path is None else path,
                name,
                id=key,
                size=(_side(entry.get("height")), _side(entry.get("width"))),
                annotation=self.source,
                annotated=annotated,
                where=f"{self.source}: {where}",
            )
            self.images.setdefault(key, (name, image))
            if path is None and image is not None:
                message = (
                    f"the image {name!r} lies outside of {self.gather.inside}, and a file may not lead there; if you "
                    "trust it, use --allow-outside (allow_outside=True in Python)"
                )
                self.gather.problem("outside of the data", f"{self.source}: {where}", message, image=image)
            elif image is not None and path is not None and (meant := self.finder.replaced(name, path)) is not None:
                message = f"the name {shown(name)} leads to {shown(str(meant))}; {shown(str(path))} is used"
                self.gather.note(ELSEWHERE, f"{self.source}: {where}", message)

    def read_categories(self) -> None:
        """Add the classes in file order. Names that occur twice get their id appended."""
        entries = self.content.get("categories")
        if entries is None:  # then only the annotations name the classes
            ids = {_id(entry, "category_id") for entry in self.annotations if isinstance(entry, dict)}
            ordered = sorted((key for key in ids if key is not None), key=lambda key: (isinstance(key, str), key))
            entries = [{"id": key, "name": str(key)} for key in ordered]
        names: dict[Id, str] = {}
        for place, entry in enumerate(entries):
            where = f"categories[{place}]"
            if not isinstance(entry, dict):
                self._problem(where, f"a category needs an id and a name, got {short(entry)}", "broken category")
                continue
            try:
                key = _known(identifier, entry, "id")
                name = str(_known(identifier, {"name": key, **entry}, "name"))  # 7 is a name too
            except Unclear as error:
                self._problem(where, f"a category needs an id and a name, but {error}", "broken category")
                continue
            if key in names:
                self._problem(where, f"the id {key!r} is also the id of {names[key]!r}", "broken category")
            else:
                names[key] = name
        count = Counter(names.values())
        taken = {name for name, times in count.items() if times == 1}
        for key, name in names.items():
            if count[name] > 1:
                while (name := f"{name} ({key})") in taken:  # one of the others may be called so
                    pass
                taken.add(name)
            self.categories[key] = name
            self.gather.add_class(name, key)

    def read_annotations(self) -> None:
        """Add the objects."""
        for place, entry in enumerate(self.annotations):
            try:
                self._read_annotation(entry)
            except _Broken as broken:
                where = f"{self.source}: annotations[{place}]"
                self.gather.problem("broken annotation", where, str(broken), image=broken.image)
        listed = some(tuple(self.categories.values()), limit=30) or "the file has none"
        for key, count in self.unknown.items():
            message = f"category_id {key!r} ({count} boxes) is not in the categories: {listed}"
            self.gather.problem("unknown class", str(self.source), message)
        if self.orphans and self.orphans == len(self.annotations):
            known, named = next(iter(self.images), None), self.annotations[0]["image_id"]
            raise UserError(
                f"{self.source}: no annotation belongs to an image. An image has the id {known!r}, for example, and an "
                f"annotation has the image_id {named!r}. Make the ids the same."
            )
        if self.orphans:
            message = f"{self.orphans} annotations have an image_id that is not in the list of images"
            self.gather.note("annotation without image", str(self.source), message)
        for key, (count, first) in self.retyped.items():
            message = f"{key} is number in one place and text in another, {count} times; the first is {first!r}"
            self.gather.note("id of another type", str(self.source), message)
        if self.polygons:
            message = f"{self.polygons} annotations have no bbox"
            self.gather.note("polygon without box", str(self.source), message)

    def _read_annotation(self, entry: Any) -> None:
        """Add one object to its image, or count why not. Raises _Broken, which says what is wrong with it."""
        if not isinstance(entry, dict):
            raise _Broken(f"expected an object, got {short(entry)}")
        try:
            key = identifier(entry.get("image_id"))
        except Unclear as error:
            raise _Broken(f"image_id {error}") from error
        if key not in self.images:
            found = self._retyped("image_id", key, self.images)
            if found is None:
                self.orphans += 1
                return
            key = found
        name, image = self.images[key]
        try:
            what = "category_id"  # for the message
            category = identifier(entry.get(what))
            what = "iscrowd"
            crowd = False if (said := entry.get(what)) is None else flag(said)
            what = "area"
            area = None if (said := entry.get(what)) is None else _area(said)
            what = "bbox"
            sides = self._sides(entry.get(what), entry)
        except Unclear as error:
            raise _Broken(f"image {name}: {what} {error}", image) from error
        if category not in self.categories:
            found = self._retyped("category_id", category, self.categories)
            if found is None:
                self.unknown[category] += 1
                if image is not None:
                    self.gather.leave_out(image, "unknown class")
                return
            category = found
        if image is not None:
            self.gather.add_object(image, self.categories[category], sides, sides=True, area=area, crowd=crowd)

    def _sides(self, box: Any, entry: dict[str, Any]) -> list[float]:
        """x, y, width, height of an object: its bbox, or that of its polygons if it has no bbox."""
        if type(box) is list and len(box) == 4:
            try:
                # The check speaks of NaN.
                return [side if type(side) is float else number(side, finite=False) for side in box]
            except Unclear:
                pass
        elif not box and (found := _around(entry.get("segmentation"))) is not None:
            self.polygons += 1
            return found
        raise Unclear(f"is {short(box)}, expected [x, y, width, height]")

    def _retyped(self, what: str, key: Id, known: Mapping[Id, Any]) -> Id | None:
        """The known id that is the same as text; None if there is none."""
        found = joined(key, known)
        if found is not None:
            count, first = self.retyped.get(what, (0, key))
            self.retyped[what] = (count + 1, first)
        return found


class _Broken(Exception):
    """What is wrong with an annotation, and the image that it belongs to, if that is known."""

    def __init__(self, message: str, image: int | None = None) -> None:
        super().__init__(message)
        self.image = image


def _known(convert: Callable[[Any], T], entry: Mapping[str, Any], key: str) -> T:
    """What an entry has under a key. The message of Unclear begins with the key."""
    try:
        return convert(entry.get(key))
    except Unclear as error:
        raise Unclear(f"{key} {error}") from error


def _id(entry: dict[str, Any], key: str) -> Id | None:
    try:
        return identifier(entry.get(key))
    except Unclear:
        return None


def _area(value: Any) -> float:
    found = number(value)
    if found < 0:
        raise Unclear(f"is {short(value)}, expected a number that is not negative")
    return found


def _around(polygons: Any) -> list[float] | None:
    """x, y, width and height of the box around polygons [[x, y, x, y, ...], ...]; None if they are no polygons."""
    if not isinstance(polygons, list) or not polygons or not all(isinstance(one, list) for one in polygons):
        return None
    if any(len(one) < 6 or len(one) % 2 for one in polygons):
        return None
    try:
        x, y = ([number(side) for one in polygons for side in one[start::2]] for start in (0, 1))
    except Unclear:
        return None
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _file_name(entry: dict[str, Any]) -> str:
    """The file that an entry of `images` names, a path below the images' folder. Unclear if it names none."""
    if entry.get("file_name") is None and isinstance(entry.get("coco_url"), str):  # LVIS: .../val2017/000000397133.jpg
        return conversions.name("/".join(entry["coco_url"].split("/")[-2:]))
    return _known(conversions.name, entry, "file_name")


def _side(value: Any) -> int:
    """Height or width in whole pixels; 0 if it is not clear, which the check then says."""
    try:
        found = number(value)
    except Unclear:
        return 0
    return round(found) if abs(found) < FARTHEST else 0


FORMAT = Format(
    title="COCO",
    looks_like="a folder with COCO JSON files (annotations/instances_train2017.json and images), or a COCO JSON file",
    holds=("boxes", "crowd regions", "areas", "ids", "image sizes", "splits"),
    find=find,
    read=read,
    lists=lists,
)
