"""Pascal VOC folders: one XML file per image, splits as text files of image names.

The layout of the development kit (Everingham et al., IJCV 2010): `Annotations/*.xml`, `JPEGImages/*`,
`ImageSets/Main/<split>.txt`. Other layouts are read too: a folder of several years (`VOCdevkit` with `VOC2007`,
`VOC2012`), a folder without `ImageSets`, lists `train.txt` and `val.txt` beside the other folders, XML files beside
their images, and folders `train`, `valid`, `test` with any of these.

Coordinates are used as they are in the file: the 1 at which VOC starts to count is not subtracted. Classes are all
names in the annotations of the folder (of the years that are read), so every split has the same list. Images are
searched for by the stem of the XML file, then by its `filename`. An image without an XML file has `annotated=False`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from singleshot.data.dataset import ImageRecord, Problem
from singleshot.data.folders import files, folders, why_no_file
from singleshot.data.formats.format import Format, Split
from singleshot.data.formats.vocxml import Annotation, parse
from singleshot.data.gather import Gather
from singleshot.data.images import IMAGE_SUFFIXES
from singleshot.data.splits import is_split_name
from singleshot.errors import UserError

_WHOLE = "all"  # the name of the only split of a folder without ImageSets
_CLASS_LINE = re.compile(r"^(\S+)\s+(-?[01])$")  # `000012 -1` in aeroplane_train.txt


@dataclass(frozen=True)
class Part:
    """A folder of images and annotations: a year of VOC, or one of several splits."""

    name: str  # "" when it is the whole dataset
    root: Path
    annotations: tuple[Path, ...]  # folders of XML files
    images: tuple[Path, ...]  # folders of images
    splits: dict[str, Path]  # the files that list images

    @cached_property
    def files(self) -> _PartFiles:
        """The files of the part, listed and read at the first access."""
        return _PartFiles(self)


@dataclass(frozen=True)
class VocSplit(Split):
    """One split of a part."""

    part: Part
    parts: tuple[Part, ...]  # all that the folder holds


def find_parts(root: Path) -> list[Part]:
    """The parts that a folder holds; none if it is not a VOC folder."""
    whole = _part(root, "")
    if whole is not None:
        return [whole]
    inner = folders(root)
    if "VOCdevkit" in inner:
        inner = folders(inner["VOCdevkit"])
    found = (_part(folder, name) for name, folder in inner.items())
    return [part for part in found if part is not None]


def find(path: Path) -> list[VocSplit]:
    """The splits that a folder offers: train, VOC2007:train, or the part itself if it has no lists."""
    parts = tuple(find_parts(path))
    found = []
    for part in parts:
        place = part.annotations[0] if part.annotations else part.root
        names = [f"{part.name}:{split}" if part.name else split for split in part.splits] or [part.name or _WHOLE]
        found += [VocSplit(name, place, part, parts) for name in names]
    return found


def read(split: VocSplit, gather: Gather) -> None:
    """Read the images that the split lists."""
    part = split.part
    # Parts with lists are separate datasets (years). Parts without lists are splits of one, with one list of classes.
    for one in (part,) if part.splits else (other for other in split.parts if not other.splits):
        for name in sorted(one.files.class_names()):
            gather.add_class(name)
    source, stems = part.files.stems(split.name)
    for stem in stems:
        annotation = part.files.xml.get(stem)
        if isinstance(annotation, Problem):
            image = _add_image(part, stem, None, source, gather)
            gather.problem(annotation.kind, annotation.where, annotation.message, image=image)
        else:
            _read_image(part, stem, annotation, source, gather)


def lists(splits: Sequence[VocSplit], parts: Mapping[str, Sequence[ImageRecord]]) -> dict[Path, bytes]:
    """A list in `ImageSets/Main` for each part."""
    root, several = splits[0].part.root, splits[0].parts
    if len(several) > 1:
        names = ", ".join(part.name for part in several)
        raise UserError(f"{root.parent} holds several datasets ({names}): give the folder of one of them")
    for record in (record for records in parts.values() for record in records):
        if record.name != record.name.encode(errors="replace").decode():
            raise UserError(
                f"{record.path!r}: lists are UTF-8 text, but this file's name is not UTF-8; rename the file"
            )
    return {
        root / "ImageSets" / "Main" / f"{part}.txt": "".join(f"{record.name}\n" for record in records).encode()
        for part, records in parts.items()
    }


def _add_image(part: Part, stem: str, annotation: Annotation | None, source: Path, gather: Gather) -> int | None:
    return gather.add_image(
        part.files.path(stem, annotation),
        stem,
        size=annotation.size if annotation else (0, 0),
        annotation=Path(annotation.path) if annotation else None,
        annotated=annotation is not None,
        stem=stem,
        group=part.name,
        where=str(source),
    )


def _read_image(part: Part, stem: str, annotation: Annotation | None, source: Path, gather: Gather) -> None:
    image = _add_image(part, stem, annotation, source, gather)
    if image is None or annotation is None:
        return
    for name, box, difficult, truncated in zip(
        annotation.names, annotation.boxes, annotation.difficult, annotation.truncated, strict=True
    ):
        gather.add_object(image, name, box, difficult=difficult, truncated=truncated)


def _part(folder: Path, name: str) -> Part | None:
    inside = {entry.lower(): path for entry, path in folders(folder).items()}
    _must_be_folders(folder, ("annotations", "jpegimages", "imagesets"))
    annotations = [inside["annotations"]] if "annotations" in inside else []
    if annotations and "xmls" in (deeper := folders(annotations[0])):
        annotations.append(deeper["xmls"])
    if not annotations:  # folders of other names count only if VOC's files are in them
        annotations = [inside[entry] for entry in ("labels", "xml", "xmls") if entry in inside]
        annotations = [place for place in annotations if _holds_xml(place)]
    images = [inside[entry] for entry in ("jpegimages", "images", "imgs", "img") if entry in inside]
    splits = {}
    if "imagesets" in inside:
        _must_be_folders(inside["imagesets"], ("main",))
        splits = _split_files(folders(inside["imagesets"]).get("Main"))
    if not splits:  # lists outside of ImageSets count only by their name: classes.txt is not a split
        splits = {split: path for split, path in _split_files(folder).items() if is_split_name(split)}
    if any(_holds_xml(place) for place in (*annotations, *images)) or (splits and (images or annotations)):
        return Part(name, folder, (*annotations, *images), (*images, *annotations, folder), splits)
    if _holds_xml(folder):
        return Part(name, folder, (folder, *images), (folder, *images), splits)
    return None


def _must_be_folders(folder: Path, names: Sequence[str]) -> None:
    """Refuse links to nothing in the place of VOC's folders: without them other data would be read, or none."""
    for name, entry in files(folder).items():
        if name.lower() in names and (why := why_no_file(entry)) is not None:
            raise UserError(f"{folder / name}: this is {why}, expected a folder; mend it, or remove it")


def _holds_xml(folder: Path) -> bool:
    """Whether a folder has VOC's XML files. Other XML files, such as CVAT's, start with another element."""
    for name, entry in files(folder).items():
        if name.lower().endswith(".xml"):
            if why_no_file(entry) is not None:
                return True  # as a broken file
            with open(folder / name, "rb") as file:
                start = file.read(4096).replace(b"\0", b"")
            element = re.search(rb"<([A-Za-z_][\w.-]*)", start)
            # A broken file counts as VOC's, so that it is reported and not skipped.
            if element is None or element[1] == b"annotation":
                return True
    return False


def _split_files(folder: Path | None) -> dict[str, Path]:
    """The files of ImageSets/Main that list images. Lists of one class (lines end in -1, 0 or 1) are not splits."""
    if folder is None:
        return {}
    return {
        Path(name).stem: folder / name
        for name in (*files(folder), *folders(folder))
        if name.lower().endswith(".txt") and not _is_class_list(folder / name)
    }


def _is_class_list(path: Path) -> bool:
    lines = _lines(path) if "_" in path.stem and why_no_file(path) is None else []
    return bool(lines) and all(_CLASS_LINE.match(line) for line in lines)


def _lines(path: Path) -> list[str]:
    if (why := why_no_file(path)) is not None:
        raise UserError(f"{path}: this is {why}, expected a list of images; mend it, or remove it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of images ({error}); expected UTF-8 text") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parsed(path: Path, entry: os.DirEntry[str] | Path) -> Annotation | Problem:
    if (why := why_no_file(entry)) is not None:
        return Problem("broken annotation", str(path), f"this is {why}, expected an XML file")
    state = entry.stat()
    return parse(str(path), state.st_mtime_ns, state.st_size)


class _PartFiles:
    """The files of one part, listed once."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.xml: dict[str, Annotation | Problem] = {}
        for folder in part.annotations:
            for name, entry in (files(folder) | folders(folder)).items():
                if name.lower().endswith(".xml") and (stem := name[:-4]) not in self.xml:
                    self.xml[stem] = _parsed(folder / name, entry)
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

    def stems(self, split: str) -> tuple[Path, list[str]]:
        """The source of the list, and the images of a split in its order."""
        if not self.part.splits:
            used = {
                image for stem, annotation in self.xml.items() if (image := self.image(stem, annotation)) is not None
            }
            alone = [stem for stem, name in self.by_stem.items() if name not in used and stem not in self.xml]
            return self.part.root, sorted([*self.xml, *alone])
        path = self.part.splits[split.rpartition(":")[2]]
        return path, [self.stem(line) for line in _lines(path)]

    def stem(self, line: str) -> str:
        """The stem of the image that a line names. Some datasets add a suffix, a folder or a second column."""
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
            return named  # several images may have this stem: the annotation names the right one
        return self.by_stem.get(stem) or (named if named in self.places else None)

    def path(self, stem: str, annotation: Annotation | None) -> Path:
        """The image of an annotation, or the place where it is expected."""
        image = self.image(stem, annotation)
        if image is not None:
            return self.places[image] / image
        named = annotation.filename if annotation else ""
        return self.part.images[0] / (named if _split_suffix(named)[1] in IMAGE_SUFFIXES else f"{stem}.jpg")


def _split_suffix(name: str) -> tuple[str, str]:
    """Stem, and suffix in lower case: `a.b.jpg` gives `a.b` and `.jpg`."""
    stem, dot, ending = name.rpartition(".")
    return (stem, f".{ending.lower()}") if dot and stem else (name, "")


FORMAT = Format(
    title="VOC",
    looks_like="a Pascal VOC folder (Annotations/*.xml, JPEGImages, ImageSets/Main/*.txt)",
    holds=("boxes", "difficult", "truncated", "image sizes", "splits"),
    find=find,
    read=read,
    lists=lists,
)
