"""Dividing a dataset that has no validation split into `train` and `val`, as lists beside the data.

Only lists are written, as the format has them (VOC: `ImageSets/Main/*.txt`, COCO: `instances_*.json`); images and
annotations stay as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from singleshot.data.dataset import Dataset
from singleshot.data.folders import each_listed_once
from singleshot.data.formats import FORMATS, load
from singleshot.data.open import find_dataset
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
        UserError: what `open_dataset` and `divide` say, a format that has no lists, or a list of that name that
            exists: none is overwritten.
    """
    found = find_dataset(path, format=format)
    splits = tuple(found.splits)
    if found.format.lists is None:
        able = ", ".join(name for name in FORMATS if load(name).lists is not None)
        raise UserError(
            f"{path}: {found.format.title} has no lists of images, so this dataset cannot be divided where it is. The "
            f"formats that can be divided are: {able}. Put the images of each part, and their annotations, into a "
            "folder of its own."
        )
    if taken := [name for name in PARTS if name in splits]:
        raise UserError(
            f"{path} has a split {taken[0]!r} already (its splits: {', '.join(splits)}), and no list is overwritten: "
            "rename it, say to trainval, and divide that with --split"
        )
    with each_listed_once():
        chosen = found.choose(split)
        dataset = found.read(chosen)
        indices = dict(zip(PARTS, divide(dataset, share, seed), strict=True))
        parts = {part: [dataset.records[k] for k in rows] for part, rows in indices.items()}
        contents = found.format.lists(chosen, parts)
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
