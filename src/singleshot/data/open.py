"""Opening a dataset: which format a path holds, and which split of it is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from singleshot.data import coco, voc
from singleshot.data.cocojson import find_files
from singleshot.data.dataset import Dataset, Problem
from singleshot.data.folders import files, folders
from singleshot.errors import UserError

FORMATS = ("voc", "coco")

_EXPECTED = (
    "expected a Pascal VOC folder (Annotations/*.xml, JPEGImages, ImageSets/Main/*.txt), a folder with COCO JSON files "
    "(annotations/instances_train2017.json and images), or a COCO JSON file"
)
_YOLO = "Write COCO files from them: python examples/yolo_to_coco.py FOLDER (in the sources of this project)"
_YOLO_LINE = re.compile(rb"\d+( +-?[\d.]+(e-?\d+)?){4,}\s*$")
_SHOWN = 20  # problems that one message lists


def open_dataset(
    path: str | Path,
    *,
    split: str | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    need_truth: bool = True,
    prefer: Sequence[str] = (),
    strict: bool = True,
) -> Dataset:
    """Read the images of one split and their truth, without opening an image or asking whether it exists.

    The format is found by itself, or given as `format` ("voc", "coco"). The split is `split`, else the first of
    `prefer` that exists, else the only one; a name also finds the only split that has it as a word (val: val2017,
    valid), and VOC's may be joined: VOC2007:trainval+VOC2012:trainval. Labels index `class_names` where that is given
    (by a checkpoint, say), else the classes of the data. `need_truth=False` takes images without annotations.

    `strict=False` is for what is checked next (`data.check.check`): problems then stand in `Dataset.problems`, and the
    images concerned are left out of the records. Raises UserError for everything else that is wrong.
    """
    root = Path(path)
    kind = _format(root, format)
    read = voc.read_voc if kind == "voc" else coco.read_coco
    dataset = read(root, split=split, prefer=prefer, class_names=class_names)
    if need_truth and not any(record.annotated for record in dataset.records) and not dataset.problems:
        raise UserError(
            f"{path}: split {dataset.split!r} has no annotations, and the truth is needed here. "
            f"The splits are: {', '.join(dataset.splits)}."
        )
    if strict:
        _refuse(dataset, need_truth)
    return dataset


def find_splits(path: str | Path, *, format: str | None = None) -> tuple[str, ...]:
    """The splits that a dataset offers, as `open_dataset` names them."""
    root = Path(path)
    return voc.find_splits(root) if _format(root, format) == "voc" else coco.find_splits(root)


def _format(root: Path, wanted: str | None) -> str:
    """The format of a path; UserError when it has none, or two and nobody says which."""
    if wanted is not None and wanted not in FORMATS:
        raise UserError(f"format {wanted!r} is unknown; the formats are: {', '.join(FORMATS)}.")
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; {_EXPECTED}.")
    if not root.is_dir():
        if root.suffix.lower() != ".json":
            yolo = f" If it describes a folder with YOLO's labels: {_YOLO}." if root.suffix.lower() == ".yaml" else ""
            raise UserError(f"{root}: a file that is no JSON; {_EXPECTED}.{yolo}")
        if wanted == "voc":
            raise UserError(f"{root}: a JSON file cannot be read as VOC; give the folder with Annotations/*.xml.")
        return "coco"
    if wanted is not None:
        return wanted
    parts, files = voc.find_parts(root), find_files(root)
    if parts and files:
        xml = next((part.annotations[0] for part in parts if part.annotations), root)
        json = ", ".join(str(file.relative_to(root)) for file in list(files.values())[:3])
        raise UserError(
            f"{root} holds two formats: VOC (XML files in {xml}) and COCO ({json}). "
            "Choose with --format voc or --format coco (format= in Python), or give the JSON file."
        )
    if parts:
        return "voc"
    if files:
        return "coco"
    if (labels := _yolo_labels(root)) is not None:
        raise UserError(f"{root}: {labels} looks like YOLO's labels, which are not read. {_YOLO}.")
    raise UserError(f"{root}: no dataset found in this folder; {_EXPECTED}.")


def _yolo_labels(root: Path) -> Path | None:
    """A text file with lines such as `0 0.5 0.5 0.1 0.2`, in the folder or at most two below it."""
    inner = list(folders(root).values())
    for place in (root, *inner, *(folder for above in inner for folder in folders(above).values())):
        texts = [place / name for name in files(place) if name.endswith(".txt")]
        for text in texts[:3]:  # the first may be a list of classes
            with text.open("rb") as file:
                if _YOLO_LINE.match(file.readline(4096)):
                    return text
    return None


def _refuse(dataset: Dataset, need_truth: bool) -> None:
    """Raise UserError with all that keeps this truth from being used as it stands."""
    problems = list(dataset.problems)
    for record in dataset.records:
        where = str(record.annotation or record.path)
        if need_truth and not record.annotated:
            problems.append(Problem("no annotation", where, f"image {record.name} has no annotation"))
        elif not np.isfinite(record.boxes).all():
            row = int(np.argmin(np.isfinite(record.boxes).all(axis=1)))
            message = f"image {record.name}, object {row + 1}: the box {record.boxes[row].tolist()} is not finite"
            problems.append(Problem("invalid box", where, message))
    if not problems:
        return
    # Each unknown class names both lists: one of them says it all.
    shown = [problem for problem in problems if problem.kind != "unknown class"][:_SHOWN]
    shown += [problem for problem in problems if problem.kind == "unknown class"][:1]
    lines = [f"{dataset.root}, split {dataset.split}: {len(problems)} problems in the annotations"]
    lines += [f"  {problem}" for problem in shown]
    if len(problems) > len(shown):
        lines.append(f"  ... and {len(problems) - len(shown)} more")
    raise UserError("\n".join(lines))
