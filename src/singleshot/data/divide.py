"""Dividing a dataset that has no validation split into `train` and `val`, as lists beside the data.

Only lists are written (VOC: `ImageSets/Main/*.txt`, COCO: `instances_*.json`); images and annotations stay as they are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from singleshot.data import cocojson
from singleshot.data.coco import ImageFinder, file_name, identifier
from singleshot.data.dataset import Dataset
from singleshot.data.open import find_splits, open_dataset
from singleshot.data.voc import find_parts
from singleshot.errors import UserError
from singleshot.files import write_atomically

PARTS = ("train", "val")


def divide(dataset: Dataset, share: float, seed: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the images to train on and of those to validate on, each in the dataset's order.

    About `share` of the images are for validation, at least one. Every image counts for the rarest class that it shows,
    and of the images of each such class the same share is drawn: so rare classes are in both parts if they can be.

    Raises:
        UserError: a share that is not between 0 and 1, or fewer than two images.
    """
    if not 0 < share < 1:
        raise UserError(
            f"the share of images to validate on is {share:g}; expected a number between 0 and 1, such as 0.2"
        )
    count = len(dataset)
    if count < 2:
        raise UserError(f"{dataset.root}: split {dataset.split!r} has {count} image; two are needed for two parts")
    labels = dataset.labels()
    boxes = np.bincount(labels, minlength=len(dataset.class_names))
    rarest = np.array([min((int(boxes[label]) for label in record.labels), default=count + len(labels))
                       for record in dataset.records])  # fmt: skip
    order = np.random.default_rng(seed).permutation(count)
    order = order[np.argsort(rarest[order], kind="stable")]
    marks = np.floor(np.arange(count + 1) * share + 0.5)  # every 1/share-th in that order
    chosen = order[np.diff(marks) > 0]
    if not len(chosen):
        chosen = order[:1]
    val = np.zeros(count, np.bool_)
    val[chosen[: count - 1]] = True
    return tuple(np.flatnonzero(~val).tolist()), tuple(np.flatnonzero(val).tolist())


def write_parts(
    path: str | Path, share: float = 0.2, *, split: str | None = None, format: str | None = None, seed: int = 0
) -> dict[str, tuple[Path, int]]:
    """Divide one split of a dataset (the only one, or `split`) and write the lists: part -> (file, number of images).

    Raises:
        UserError: what `open_dataset` and `divide` say, or a list of that name that exists: none is overwritten.
    """
    splits = find_splits(path, format=format)
    if taken := [name for name in PARTS if name in splits]:
        raise UserError(
            f"{path} has a split {taken[0]!r} already (its splits: {', '.join(splits)}), and no list is overwritten: "
            "rename it, say to trainval, and divide that with --split"
        )
    dataset = open_dataset(path, split=split, format=format, strict=False, need_truth=False)
    indices = dict(zip(PARTS, divide(dataset, share, seed), strict=True))
    contents = _voc_lists(dataset, indices) if dataset.format == "voc" else _coco_files(dataset, indices)
    for file in contents:
        if file.exists():
            raise UserError(f"{file} exists already, and no list is overwritten: move it away, or give another folder")
    written: list[Path] = []
    try:
        for file, content in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, content)
            written.append(file)
    except BaseException:
        for file in written:  # one list alone would be a wrong one
            file.unlink()
        raise
    return {part: (file, len(indices[part])) for part, file in zip(PARTS, contents, strict=True)}


def _voc_lists(dataset: Dataset, indices: dict[str, tuple[int, ...]]) -> dict[Path, bytes]:
    parts = find_parts(dataset.root)
    if len(parts) > 1:
        raise UserError(
            f"{dataset.root} holds several datasets ({', '.join(dataset.splits)}): give the folder of one of them"
        )
    names = [record.name for record in dataset.records]
    for record in dataset.records:
        if record.name != record.name.encode(errors="replace").decode():
            raise UserError(f"{record.path!r}: a list is UTF-8, and this file's name is not; rename it")
    return {
        parts[0].root / "ImageSets" / "Main" / f"{part}.txt": "".join(f"{names[k]}\n" for k in chosen).encode()
        for part, chosen in indices.items()
    }


def _coco_files(dataset: Dataset, indices: dict[str, tuple[int, ...]]) -> dict[Path, bytes]:
    source = dataset.root if dataset.root.is_file() else cocojson.find_files(dataset.root)[dataset.split]
    content = cocojson.load(source)
    places = {record.id: record.path for record in dataset.records}
    found = {}
    for part, chosen in indices.items():
        file = source.with_name(f"instances_{part}.json")
        ids = {dataset.records[k].id for k in chosen}
        finder = ImageFinder(file, part)
        images = [_as_found(image, places, finder, file) for image in _entries(content, "images", "id", ids)]
        parts: dict[str, Any] = {"images": images}
        if "annotations" in content:  # without any the images are not labelled, which is not: empty
            parts["annotations"] = _entries(content, "annotations", "image_id", ids)
        found[file] = json.dumps({**content, **parts}).encode()
    return found


def _entries(content: dict[str, Any], name: str, key: str, ids: set[int | str]) -> list[dict[str, Any]]:
    """The entries of these images; what is no entry at all is left behind."""
    return [entry for entry in content[name] if isinstance(entry, dict) and identifier(entry.get(key)) in ids]


def _as_found(image: dict[str, Any], places: dict[int | str, Path], finder: ImageFinder, file: Path) -> dict[str, Any]:
    """The entry of an image; where its folder has the name of the split that is divided, with that folder."""
    place = places[identifier(image["id"])]  # type: ignore[index]  # it is one of those that were chosen
    if finder.path(file_name(image) or "") == place:
        return image
    return {**image, "file_name": Path(os.path.relpath(place, file.absolute().parent)).as_posix()}
