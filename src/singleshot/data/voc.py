"""Reader of Pascal VOC folders: one XML file per image, splits as text files of image names.

The layout of the development kit (Everingham et al., IJCV 2010): `Annotations/*.xml`, `JPEGImages/*`,
`ImageSets/Main/<split>.txt`. Also read are a folder of several years (`VOCdevkit` with `VOC2007`, `VOC2012`), a folder
without `ImageSets`, lists `train.txt`, `val.txt` beside the other folders, XML files beside their images, and folders
`train`, `valid`, `test` of such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from singleshot.data.dataset import Dataset, ImageRecord, Problem
from singleshot.data.folders import files, folders
from singleshot.data.images import IMAGE_SUFFIXES
from singleshot.data.splits import choose_split, is_split_name
from singleshot.data.vocxml import Annotation, parse
from singleshot.errors import UserError

_WHOLE = "all"  # the name of the one split of a folder without ImageSets
_CLASS_LINE = re.compile(r"^(\S+)\s+(-?[01])$")  # `000012 -1` in aeroplane_train.txt


@dataclass(frozen=True)
class Part:
    """A folder of images and annotations: a year of VOC, or one of several splits."""

    name: str  # "" when it is the whole dataset
    root: Path
    annotations: tuple[Path, ...]  # folders of XML files
    images: tuple[Path, ...]  # folders of images
    splits: dict[str, Path]  # the files that list images

    @property
    def split_names(self) -> list[str]:
        """The splits as a user names them: train, VOC2007:train, or the part itself where it has no lists."""
        if not self.splits:
            return [self.name or _WHOLE]
        return [f"{self.name}:{split}" if self.name else split for split in self.splits]


def find_parts(root: Path) -> list[Part]:
    """The parts that a folder holds; none when it is no VOC folder."""
    whole = _part(root, "")
    if whole is not None:
        return [whole]
    inner = folders(root)
    if "VOCdevkit" in inner:
        inner = folders(inner["VOCdevkit"])
    found = (_part(folder, name) for name, folder in inner.items())
    return [part for part in found if part is not None]


def find_splits(root: Path) -> tuple[str, ...]:
    """The splits that a folder offers."""
    return tuple(split for part in find_parts(root) for split in part.split_names)


def read_voc(
    root: Path, *, split: str | None = None, prefer: Sequence[str] = (), class_names: Sequence[str] | None = None
) -> Dataset:
    """Read one split of a VOC folder, or several joined as `VOC2007:trainval+VOC2012:trainval`.

    Coordinates are taken as they stand, without the 1 that VOC starts to count at. Classes are all names in the
    annotations of the folder (of the years that are read) in alphabetical order, VOC's own for its 20, so that every
    split has the same list; their ids are 1..K. Images are looked for by the stem of the XML file, then by its
    `filename`, and are not opened. Files that cannot be read are in `Dataset.problems`, images without an XML file
    have `annotated=False`.

    Raises UserError for a folder without data, for a wrong split and for an empty one.
    """
    parts = find_parts(root)
    if not parts:
        raise UserError(f"{root}: no Pascal VOC data; expected Annotations/*.xml, JPEGImages and ImageSets/Main/*.txt")
    offered = [name for part in parts for name in part.split_names]
    wanted = split.split("+") if split is not None and split not in offered else [split]
    chosen = [choose_split(offered, name, prefer, str(root)) for name in wanted]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"{root}: split {split!r} names {max(chosen, key=chosen.count)!r} twice.")
    owners = {name: part.name for part in parts for name in part.split_names}
    # Parts with lists are datasets of their own (years); parts without are the splits of one, with one list of classes.
    used = {owners[name] for name in chosen}
    whole = any(part.name in used and not part.splits for part in parts)
    readers = {part.name: _PartReader(part) for part in parts if part.name in used or (whole and not part.splits)}
    names = sorted({name for reader in readers.values() for name in reader.class_names()})
    classes = tuple(names) if class_names is None else tuple(class_names)

    gathered = _Gathered(classes, tuple(names))
    for name in chosen:
        readers[owners[name]].read(name, len(used) > 1, gathered)
    label = "+".join(chosen)
    if not gathered.records and not gathered.problems:
        raise UserError(f"{root}: split {label!r} is empty: no image is listed or found.")
    return Dataset(
        root=root,
        format="voc",
        split=label,
        class_names=classes,
        category_ids=tuple(range(1, len(classes) + 1)),
        records=tuple(gathered.records),
        splits=tuple(offered),
        problems=(*gathered.problems, *gathered.unknown_classes()),
    )


def _part(folder: Path, name: str) -> Part | None:
    inside = {entry.lower(): path for entry, path in folders(folder).items()}
    annotations = [inside["annotations"]] if "annotations" in inside else []
    if annotations and "xmls" in (deeper := folders(annotations[0])):
        annotations.append(deeper["xmls"])
    if not annotations:  # by other names only with VOC's files in them
        annotations = [inside[entry] for entry in ("labels", "xml", "xmls") if entry in inside]
        annotations = [place for place in annotations if _holds_xml(place)]
    images = [inside[entry] for entry in ("jpegimages", "images", "imgs", "img") if entry in inside]
    splits = _split_files(folders(inside["imagesets"]).get("Main") if "imagesets" in inside else None)
    if not splits:  # a list outside of its place is one by its name alone: classes.txt is none
        splits = {split: path for split, path in _split_files(folder).items() if is_split_name(split)}
    if any(_holds_xml(place) for place in (*annotations, *images)) or (splits and (images or annotations)):
        return Part(name, folder, (*annotations, *images), (*images, *annotations, folder), splits)
    if _holds_xml(folder):
        return Part(name, folder, (folder, *images), (folder, *images), splits)
    return None


def _holds_xml(folder: Path) -> bool:
    """Whether a folder has VOC's XML files; other XML, such as CVAT's, starts with another element."""
    for name in files(folder):
        if name.lower().endswith(".xml"):
            with open(folder / name, "rb") as file:
                start = file.read(4096).replace(b"\0", b"")
            element = re.search(rb"<([A-Za-z_][\w.-]*)", start)
            # A broken file is taken for one of ours, so that it is reported and not passed over.
            if element is None or element[1] == b"annotation":
                return True
    return False


def _split_files(folder: Path | None) -> dict[str, Path]:
    """The files of ImageSets/Main that list images. Lists of one class (lines end in -1, 0 or 1) are no splits."""
    if folder is None:
        return {}
    return {
        Path(name).stem: folder / name
        for name in files(folder)
        if name.lower().endswith(".txt") and not _is_class_list(folder / name)
    }


def _is_class_list(path: Path) -> bool:
    lines = _lines(path) if "_" in path.stem else []
    return bool(lines) and all(_CLASS_LINE.match(line) for line in lines)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of images ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


class _Gathered:
    """Records as they are read, and what went wrong on the way."""

    def __init__(self, classes: tuple[str, ...], found: tuple[str, ...]) -> None:
        self.classes = classes
        self.found = found
        self.index = {name: label for label, name in enumerate(classes)}
        self.records: list[ImageRecord] = []
        self.problems: list[Problem] = []
        self.ids: set[str] = set()
        self.unknown: dict[str, list[Path]] = {}  # class name -> the file of each box

    def unknown_classes(self) -> list[Problem]:
        return [
            Problem(
                "unknown class",
                str(places[0]),
                f"class {name!r} ({len(places)} boxes in {len(set(places))} files) is not in the class list: expected "
                f"{', '.join(self.classes)}; the data has {', '.join(self.found)}",
            )
            for name, places in sorted(self.unknown.items())
        ]


class _PartReader:
    """The files of one part, listed once."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.xml: dict[str, Annotation | Problem] = {}
        for folder in part.annotations:
            for name, entry in files(folder).items():
                if name.lower().endswith(".xml") and (stem := name[:-4]) not in self.xml:
                    state = entry.stat()
                    self.xml[stem] = parse(str(folder / name), state.st_mtime_ns, state.st_size)
        self.places: dict[str, Path] = {}  # name of an image file -> its folder
        self.by_stem: dict[str, str] = {}  # stem -> name of an image file
        for folder in part.images:
            for name in files(folder):
                stem, suffix = _split_suffix(name)
                if suffix in IMAGE_SUFFIXES:
                    self.places.setdefault(name, folder)
                    self.by_stem.setdefault(stem, name)

    def class_names(self) -> set[str]:
        return {
            name for annotation in self.xml.values() if isinstance(annotation, Annotation) for name in annotation.names
        }

    def read(self, split: str, several: bool, gathered: _Gathered) -> None:
        source, stems = self.stems(split)
        for stem in stems:
            key = f"{self.part.name}/{stem}" if several else stem
            if key in gathered.ids:
                message = f"image {stem!r} is listed twice"
                gathered.problems.append(Problem("duplicate image id", str(source), message))
                continue
            gathered.ids.add(key)
            annotation = self.xml.get(stem)
            if isinstance(annotation, Problem):
                gathered.problems.append(annotation)
                continue
            gathered.records.append(self.record(stem, key, annotation, gathered))

    def stems(self, split: str) -> tuple[Path, list[str]]:
        """Where the list comes from, and the images of a split in its order."""
        if not self.part.splits:
            used = {
                image for stem, annotation in self.xml.items() if (image := self.image(stem, annotation)) is not None
            }
            alone = [stem for stem, name in self.by_stem.items() if name not in used and stem not in self.xml]
            return self.part.root, sorted([*self.xml, *alone])
        path = self.part.splits[split.rpartition(":")[2]]
        return path, [self.stem(line) for line in _lines(path)]

    def stem(self, line: str) -> str:
        """The image that a line means: its stem, in some datasets with an ending, a folder or a second column."""
        if line in self.xml or line in self.by_stem:
            return line
        name = line.replace("\\", "/").rpartition("/")[2]
        stem, suffix = _split_suffix(name)
        if suffix in IMAGE_SUFFIXES or suffix == ".xml":
            return stem
        column = _CLASS_LINE.match(name)
        return self.stem(column[1]) if column else name

    def image(self, stem: str, annotation: Annotation | Problem | None) -> str | None:
        """The name of the image file of an annotation."""
        named = annotation.filename if isinstance(annotation, Annotation) else ""
        if _split_suffix(named)[0] == stem and named in self.places:
            return named  # of several images with this stem, the one that the annotation names
        return self.by_stem.get(stem) or (named if named in self.places else None)

    def record(self, stem: str, key: str, annotation: Annotation | None, gathered: _Gathered) -> ImageRecord:
        image = self.image(stem, annotation)
        if image is None:
            named = annotation.filename if annotation else ""
            path = self.part.images[0] / (named if _split_suffix(named)[1] in IMAGE_SUFFIXES else f"{stem}.jpg")
        else:
            path = self.places[image] / image
        annotation_path = None if annotation is None else Path(annotation.path)
        keep = []
        for i, name in enumerate(annotation.names if annotation else ()):
            if name in gathered.index:
                keep.append(i)
            elif annotation_path is not None:
                gathered.unknown.setdefault(name, []).append(annotation_path)
        known = annotation or Annotation("", "", (0, 0), (), (), (), ())
        boxes = np.array([known.boxes[i] for i in keep], np.float64).reshape(-1, 4)
        return ImageRecord(
            path=path,
            name=stem,
            id=key,
            size=known.size,
            boxes=boxes,
            labels=np.array([gathered.index[known.names[i]] for i in keep], np.int64),
            difficult=np.array([known.difficult[i] for i in keep], np.bool_),
            crowd=np.zeros(len(keep), np.bool_),
            truncated=np.array([known.truncated[i] for i in keep], np.bool_),
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            annotation=annotation_path,
            annotated=annotation is not None,
        )


def _split_suffix(name: str) -> tuple[str, str]:
    """Stem and ending in lower case; `a.b.jpg` is `a.b` and `.jpg`."""
    stem, dot, ending = name.rpartition(".")
    return (stem, f".{ending.lower()}") if dot and stem else (name, "")
