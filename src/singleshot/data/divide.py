"""Divides a dataset that has no validation split into `train` and `val`, as lists beside the data.

Only lists are written, in the form of the format (VOC: `ImageSets/Main/*.txt`, COCO: `instances_*.json`). Images and
annotations are not changed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from singleshot.data.dataset import Dataset
from singleshot.data.folders import each_listed_once
from singleshot.data.formats import FORMATS, load
from singleshot.data.open import find_dataset, refuse
from singleshot.errors import UserError
from singleshot.files import write_together

PARTS = ("train", "val")


def divide(dataset: Dataset, share: float, seed: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose the images to train on and to validate on: two tuples of indices, each in the dataset's order.

    About `share` of the images are for validation, at least one. Images are grouped by the rarest class that they show,
    and the same share is drawn from each group. So rare classes are in both parts where that is possible.

    Raises:
        UserError: the share is not between 0 and 1, or there are fewer than two images.
    """
    if not 0 < share < 1:
        raise UserError(
            f"the share of images to validate on is {share:g}; expected a number between 0 and 1, such as 0.2"
        )
    count = len(dataset)
    if count < 2:
        raise UserError(
            f"{dataset.root}: split {dataset.split!r} has {count} image, and two parts need at least two; add images, "
            "or choose another split"
        )
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
    path: str | Path,
    share: float = 0.2,
    *,
    split: str | None = None,
    format: str | None = None,
    seed: int = 0,
    allow_outside: bool = False,
) -> dict[str, tuple[Path, int]]:
    """Divide one split of a dataset (the only one, or `split`) and write the lists.

    Returns part -> (file, number of images).

    Raises:
        UserError: as `open_dataset` and `divide`; an image has annotations that cannot be read; the format has no lists
            of images; or a list of that name exists, since no list is overwritten.
    """
    found = find_dataset(path, format=format)
    splits = tuple(found.splits)
    if found.format.lists is None:
        able = ", ".join(name for name in FORMATS if load(name).lists is not None)
        raise UserError(
            f"{path}: {found.format.title} has no lists of images, so this dataset cannot be divided in place. The "
            f"formats that can be divided are: {able}. Put the images and the annotations of each part into a separate "
            "folder."
        )
    if taken := [name for name in PARTS if name in splits]:
        half = "" if len(taken) == len(PARTS) else "; if a division that was stopped has left it, remove its list"
        raise UserError(
            f"{path} already has a split {taken[0]!r} (its splits: {', '.join(splits)}), and no list is overwritten: "
            f"rename that split, for example to trainval, and divide it with --split{half}"
        )
    with each_listed_once():
        chosen = found.choose(split)
        dataset = found.read(chosen, allow_outside=allow_outside)
        if dataset.left_out:  # these images would be in neither list
            refuse(dataset, dataset.problems)
        indices = dict(zip(PARTS, divide(dataset, share, seed), strict=True))
        parts = {part: [dataset.records[k] for k in rows] for part, rows in indices.items()}
        contents = found.format.lists(chosen, parts)
    for file in contents:
        if file.exists():
            raise UserError(f"{file} already exists, and no list is overwritten: move it away, or give another folder")
    try:
        write_together(contents.items())
    except BaseException:
        for file in contents:  # a list without its partner would be wrong
            file.unlink(missing_ok=True)
        raise
    return {part: (file, len(indices[part])) for part, file in zip(PARTS, contents, strict=True)}
