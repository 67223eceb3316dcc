"""Detections of a dataset, and the files that hold them: COCO results and VOC's `comp4_det_test_CLASS.txt`."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from singleshot.conversions import Unclear, joined, number
from singleshot.data.dataset import Dataset, Floats
from singleshot.data.normalised import refuse_normalised
from singleshot.errors import UserError, in_brackets, short, shown
from singleshot.evaluation.coco_results import RESULTS_NAME, ResultsText, coco_entries
from singleshot.evaluation.suspicious import check_detections
from singleshot.files import not_a_file, write_together
from singleshot.paths import to_path

_log = logging.getLogger(__name__)

VOC_PREFIX = "comp4_det_test_"

_LONGEST_NAME = 200  # bytes of a class name in a file's name; disks take 255, VOC's prefix and an ending included
_NOT_IN_LINES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_IN_NAMES = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff%/\\\\<>:"|?*]')  # the last are Windows'


@dataclass(frozen=True)
class ImageDetections:
    """The detections of one image, in pixels of that image."""

    boxes: Floats  # [N, 4] xyxy
    scores: Floats  # [N]
    labels: NDArray[np.int64]  # [N] index into `Dataset.class_names`
    xywh: Floats | None = None  # [N, 4] a results file's own numbers: in floating point x + w - x may differ from w
    order: NDArray[np.int64] | None = None  # [N] line in a VOC file: equal scores keep the order of the file

    def __len__(self) -> int:
        return len(self.scores)

    def sides(self) -> Floats:
        """The boxes as x, y, w, h: [N, 4]. If they were read from a file, these are the file's own numbers."""
        return as_sides(self.boxes) if self.xywh is None else np.asarray(self.xywh, np.float64).reshape(-1, 4)


def as_sides(boxes: Floats) -> Floats:
    """Convert corners x1, y1, x2, y2 to x, y, w, h: both [N, 4]."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def as_corners(xywh: Floats) -> Floats:
    """Convert x, y, w, h to corners x1, y1, x2, y2: both [N, 4]."""
    xywh = np.asarray(xywh, np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)


def read_detections(path: str | Path, dataset: Dataset) -> list[ImageDetections]:
    """Read the detections of a dataset, one entry per record. Boxes are exactly as in the files.

    `path` is a COCO results JSON, or a folder of VOC files `comp4_det_test_CLASS.txt` (any `*_CLASS.txt`). A folder
    without such files may hold one results JSON instead. No image is opened.

    Scores that are not between 0 and 1, and detections that are there twice, are warnings in the log.

    Raises `UserError`, with the file and the entry or line, for an unknown image or class, what is not clearly a finite
    number, inverted boxes, numbers beyond 1e9, or boxes that are divided by the image size.
    """
    path = to_path(path)
    try:
        if not path.is_dir():
            return _read_results(path, dataset)
        files = _class_files(path, dataset)
        if files:
            return _read_voc(files, dataset)
        results = sorted(path.glob("*.json"))
        if len(results) == 1:
            return _read_results(_regular(results[0]), dataset)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error}); give a COCO results JSON or VOC text files") from None
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    raise UserError(
        f"{path}: no detections in this folder: expected VOC files {VOC_PREFIX}CLASS.txt for the classes of the data "
        f"({', '.join(dataset.class_names[:5])}), or exactly one COCO results JSON (found {len(results)})"
    )


def save_detections(
    folder: str | Path, dataset: Dataset, detections: Sequence[ImageDetections], *, overwrite: bool = False
) -> list[Path]:
    """Write the detections in both formats: `detections.json` and one VOC file per class. Returns the files.

    The JSON has the image ids and category ids of the data's own files. Numbers are written with all their digits, so
    that reading them back gives the same metrics. With a full disk no file is changed. Letters that a file's
    name or a line cannot have are written as `%0A`, as in web addresses; reading knows both forms.

    Raises `UserError` if the folder cannot be written, or, without `overwrite`, if one of the files exists.
    """
    if len(detections) != len(dataset):
        raise UserError(f"{len(dataset)} images but detections for {len(detections)}: one entry per record is needed")
    folder = writable(folder, saved_names(dataset), overwrite=overwrite)
    json_name, *voc_names = saved_names(dataset)
    contents = {json_name: _results(dataset, detections).encode(errors="backslashreplace")}
    for name, lines in zip(voc_names, _voc_lines(dataset, detections), strict=True):
        contents[name] = "".join(lines).encode()
    try:
        return write_together((folder / name, content) for name, content in contents.items())
    except OSError as error:
        raise _not_written(Path(error.filename), error) from None


def saved_names(dataset: Dataset) -> list[str]:
    """The names of the files that `save_detections` writes."""
    return [RESULTS_NAME, *(f"{VOC_PREFIX}{form}.txt" for form in _file_forms(dataset.class_names))]


def writable(folder: str | Path, names: Iterable[str] = (), *, overwrite: bool = False) -> Path:
    """Create the folder if needed, and check that files of these names can be written in it. Call before a long run.

    Raises `UserError` if they cannot be written, or, without `overwrite`, if one of them exists.
    """
    folder = to_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_written(folder, error) from None
    standing = [folder / name for name in names if os.path.lexists(folder / name)]
    if standing and not overwrite:
        raise UserError(
            f"{shown(standing[0])} exists already{in_brackets('and others') if len(standing) > 1 else ''}; choose "
            "another name, or give --overwrite (in Python overwrite=True)"
        )
    if folders := [path for path in standing if path.is_dir()]:
        raise UserError(f"{shown(folders[0])} is a folder, but a file is to be written; choose another name")
    return folder


def _not_written(target: Path, error: OSError) -> UserError:
    return UserError(f"{target}: cannot be written ({error.strerror}); choose another folder")


# ---- COCO results


def _read_results(path: Path, dataset: Dataset) -> list[ImageDetections]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: broken JSON ({error}); expected a list of COCO results") from None
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a JSON list of COCO results, got {_kind(entries)}")
    image_of = _unique([record.id for record in dataset.records], "images with the id")
    label_of = _unique(dataset.category_ids, "categories with the id")
    images, labels, scores, boxes = [], [], [], []
    retyped: Counter[str] = Counter()  # ids that are a number in one place and text in another
    for index, entry in enumerate(entries):

        def fail(problem: str, index: int = index) -> UserError:
            return UserError(f"{path}: entry {index} (counted from 0): {problem}")

        if not isinstance(entry, dict):
            raise fail(f"expected an object, got {_kind(entry)}")
        for key in ("image_id", "category_id", "bbox", "score"):
            if key not in entry:
                raise fail(f"{key!r} is missing; a result has image_id, category_id, bbox [x, y, w, h] and score")
        images.append(_index(entry["image_id"], image_of, "image_id", "images of the data", fail, retyped))
        labels.append(_index(entry["category_id"], label_of, "category_id", "categories of the data", fail, retyped))
        box, score = entry["bbox"], entry["score"]
        if not isinstance(box, list) or len(box) != 4:
            raise fail(f"bbox must be four finite numbers [x, y, w, h], got {short(box)}")
        try:
            boxes.append([number(side) for side in box])
        except Unclear as error:
            raise fail(f"bbox must be four finite numbers [x, y, w, h], got {short(box)}: one {error}") from None
        try:
            scores.append(number(score))
        except Unclear:
            raise fail(f"score must be a finite number, got {short(score)}") from None
    for key, count in retyped.items():
        _log.warning(
            "%s: %s is number here and text in the data, or the other way round, %d times; ids that are the same as "
            "text are the same", shown(path), key, count,
        )  # fmt: skip
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    refuse_normalised(path, xywh)
    check_detections(
        shown(path),
        lambda row: f"{shown(path)}: entry {row} (counted from 0)",
        boxes=as_corners(xywh),
        sides=xywh[:, 2:],
        scores=np.array(scores, np.float64),
        of=np.array([images, labels], np.int64).T.reshape(-1, 2),
    )
    return _per_image(dataset, images, labels, scores, as_corners(xywh), xywh=xywh)


def _index(
    value: Any,
    known: dict[int | str, int],
    key: str,
    what: str,
    fail: Callable[[str], UserError],
    retyped: Counter[str],
) -> int:
    """The record or label that an id of the file refers to. `retyped` counts those found as another type."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise fail(f"{key} must be a number or a text, got {short(value)}")
    index = known.get(value)  # type: ignore[arg-type]  # 42.0 also finds 42
    if index is None and not isinstance(value, float) and (other := joined(value, known)) is not None:
        retyped[key] += 1
        index = known[other]
    if index is None:
        some = ", ".join(map(short, list(known)[:3]))
        raise fail(f"{key} {short(value)} is not among the {len(known)} {what} (such as {some})")
    return index


def _unique(ids: Sequence[int | str], what: str) -> dict[int | str, int]:
    """The index of each id. Two equal ids are an error: their detections could not be told apart."""
    places: dict[int | str, int] = {}
    for place, key in enumerate(ids):
        if places.setdefault(key, place) != place:
            raise UserError(
                f"the data has two {what} {key!r}, and a file of detections cannot tell them apart; rename one of them"
            )
    return places


def _results(dataset: Dataset, detections: Sequence[ImageDetections]) -> str:
    file = io.StringIO()
    text = ResultsText(file)
    for record, found in zip(dataset.records, detections, strict=True):
        numbers = {"labels": found.labels, "sides": found.sides(), "scores": found.scores}
        text.add(coco_entries(record.id, dataset.category_ids, **numbers))
    text.end()
    return file.getvalue()


# ---- VOC text files


def _class_files(folder: Path, dataset: Dataset) -> list[tuple[int, Path]]:
    """The label and the file of every class that has detections in the folder."""
    names = {form: label for label, form in enumerate(_file_forms(dataset.class_names))}
    for label, own in enumerate(dataset.class_names):
        names.setdefault(own, label)  # other programs leave the letters as they are
        names.setdefault(_marked(_file_form(own)), label)  # written for data with more classes
    longest_first = sorted(names, key=len, reverse=True)  # "race_car" before "car"
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.txt")):
        name = next((name for name in longest_first if path.stem == name or path.stem.endswith("_" + name)), None)
        if name is None:
            if re.match(r"comp\d+_(det|cls)_", path.stem):
                raise UserError(
                    f"{path}: the data has no class of this name; its classes are {', '.join(names)}. "
                    "Rename the file, or take it out"
                )
            continue
        if names[name] in found:
            raise UserError(
                f"{folder}: two files for class {name!r}: {found[names[name]].name} and {path.name}; keep one"
            )
        found[names[name]] = _regular(path)
    return sorted(found.items())


def _regular(path: Path) -> Path:
    """A path of a listing, if it can be opened: a named pipe would wait for ever."""
    if (kind := not_a_file(path)) is not None:
        raise UserError(f"{path}: this is {kind}, expected a file of detections; take it away")
    return path


def _read_voc(files: Sequence[tuple[int, Path]], dataset: Dataset) -> list[ImageDetections]:
    image_of = _images_by_name(dataset)
    images: list[int] = []
    labels: list[int] = []
    order: list[int] = []
    numbers: list[list[float]] = []
    for label, path in files:
        with path.open(encoding="utf-8-sig") as lines:
            for line_number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                # Split from the right: the name of an image may have spaces.
                name, *words = line.strip().rsplit(maxsplit=5)
                try:
                    row = [number(word) for word in words]
                except Unclear:
                    row = []
                if len(row) != 5:
                    raise UserError(
                        f"{path}:{line_number}: expected `image score x1 y1 x2 y2`, the last five finite numbers, "
                        f"got {line.strip()[:200]!r}"
                    )
                if name not in image_of:
                    raise UserError(
                        f"{path}:{line_number}: image {short(name)} is not among the {len(dataset)} images of the data"
                        + (f" (such as {dataset.records[0].name!r})" if len(dataset) else "")
                    )
                images.append(image_of[name])
                numbers.append(row)
                labels.append(label)
                order.append(line_number)
    table = np.array(numbers, np.float64).reshape(-1, 5)
    boxes = table[:, 1:]
    refuse_normalised(files[0][1].parent, boxes)
    file_of = dict(files)
    check_detections(
        shown(files[0][1].parent),
        lambda row: f"{shown(file_of[labels[row]])}:{order[row]}",
        boxes=boxes,
        sides=boxes[:, 2:] - boxes[:, :2],
        scores=table[:, 0],
        of=np.array([images, labels], np.int64).T.reshape(-1, 2),
    )
    return _per_image(dataset, images, labels, table[:, 0], table[:, 1:], order=np.array(order, np.int64))


def _voc_lines(dataset: Dataset, detections: Sequence[ImageDetections]) -> list[list[str]]:
    """The lines of each class, in the order of the images or of the file that the detections were read from."""
    lines: list[list[tuple[int, str]]] = [[] for _ in dataset.class_names]
    for name, found in zip(_voc_names(dataset), detections, strict=True):
        order = [0] * len(found) if found.order is None else found.order.tolist()
        for place, label, score, box in zip(
            order, found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
        ):
            lines[label].append((place, f"{name} {score!r} {' '.join(map(repr, box))}\n"))
    return [[line for _, line in sorted(of_class, key=itemgetter(0))] for of_class in lines]


def _voc_names(dataset: Dataset) -> list[str]:
    """The names of the images in VOC files: the stem, or the id if images share a stem (a/1.jpg and b/1.jpg)."""
    stems = [_line_form(Path(record.name).stem if record.stem is None else record.stem) for record in dataset.records]
    if len(set(stems)) == len(stems):
        return stems
    return [_line_form(str(record.id)) for record in dataset.records]


def _images_by_name(dataset: Dataset) -> dict[Any, int]:
    known: dict[Any, int] = _unique(_voc_names(dataset), "images called")
    for i, record in enumerate(dataset.records):  # also file names with suffix, and ids, unless the name is taken
        known.setdefault(record.name, i)
    for i, record in enumerate(dataset.records):
        known.setdefault(str(record.id), i)
    return known


def _line_form(name: str) -> str:
    """A name in the form that it has in a line of a VOC file: without what would end the line or cannot be written."""
    if name.isprintable() and name == name.strip():  # nearly always
        return name
    bad = _NOT_IN_LINES.sub(_escaped, name)
    return re.sub(r"^\s+|\s+$", _escaped, bad)


def _file_forms(names: Sequence[str]) -> list[str]:
    """The class names in the form that they have in files' names: never two that a disk takes for one.

    Many disks ignore upper and lower case, and whether a letter and its accent are one character or two. Of such names
    the first of the alphabet is left as it is.
    """
    forms: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        form = _file_form(name)
        alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", form).casefold())
        forms[name] = _marked(form) if alike in taken else form
        taken.add(alike)
    return [forms[name] for name in names]


def _file_form(name: str) -> str:
    """A class name in the form that it has alone. Two names never have the same form."""
    form = _NOT_IN_NAMES.sub(_escaped, name)
    return form if len(form.encode()) <= _LONGEST_NAME else _marked(form)


def _marked(form: str) -> str:
    """A form with a mark that no other name has."""
    start = form.encode()[: _LONGEST_NAME - 20].decode(errors="ignore")
    return f"{start}%{hashlib.sha256(form.encode()).hexdigest()[:16]}"


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="surrogatepass"))


# ---- both


def _per_image(
    dataset: Dataset,
    images: Sequence[int],
    labels: Sequence[int],
    scores: Sequence[float] | Floats,
    boxes: Floats,
    *,
    xywh: Floats | None = None,
    order: NDArray[np.int64] | None = None,
) -> list[ImageDetections]:
    """Sort the columns of a file into one entry per image, rows in the order of the file."""
    label_column, score_column = np.array(labels, np.int64), np.array(scores, np.float64)
    image_column = np.array(images, np.int64)
    by_image = np.argsort(image_column, kind="stable")
    ends = np.searchsorted(image_column[by_image], np.arange(len(dataset) + 1))
    result = []
    for start, end in itertools.pairwise(ends.tolist()):
        rows = by_image[start:end]
        result.append(
            ImageDetections(
                boxes[rows],
                score_column[rows],
                label_column[rows],
                xywh=None if xywh is None else xywh[rows],
                order=None if order is None else order[rows],
            )
        )
    return result


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), short(value))
