"""From a recipe to the objects of a run: data, augmentation, precision. `start` builds the detector."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from singleshot.cache import VARIABLE, cache_folder, switched_off
from singleshot.data.check import check
from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.deep import DeepRange
from singleshot.data.image_cache import ImageCache
from singleshot.data.limits import detector_note
from singleshot.data.open import open_dataset
from singleshot.data.splits import find_split
from singleshot.data.transforms import (
    INTERPOLATIONS,
    Compose,
    Expand,
    Mirror,
    PhotometricDistortion,
    QuarterTurn,
    Resize,
    SamplerCrop,
    ScaleJitter,
    SSDAugmentation,
    Target,
    Transform,
    VerticalFlip,
)
from singleshot.devices import fastest_precision
from singleshot.errors import UserError
from singleshot.preprocess import KeepAspect, Preprocess
from singleshot.training.recipe import Augmentation, Data, Recipe

TRAIN_SPLITS = ("train", "trainval")


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class RunData:
    """The images to train on, and those to validate on. `val` has the boxes of the files, uncorrected."""

    train: Dataset
    val: Dataset | None
    warnings: list[str]

    @property
    def fingerprint(self) -> str:
        """Tells whether two runs see the same training images and boxes."""
        digest = hashlib.sha256(repr((self.train.class_names, len(self.train))).encode())
        for record in self.train.records:
            digest.update(os.fsencode(record.name) + record.boxes.tobytes() + record.labels.tobytes())
        return digest.hexdigest()[:16]


def open_data(recipe: Recipe, known: tuple[str, ...] = ()) -> RunData:
    """Open and check the images of a recipe.

    `known`: the classes of the detector to start from. If the data has the same classes, the detector's order counts.

    Raises:
        UserError: no data, bad images that are not to be skipped, or nothing left to train or validate on.
    """
    settings = recipe.data
    if settings.path is None:
        raise UserError("there is no data: give the folder or the annotation file to train on (recipe: data.path)")
    path = settings.path
    found = _open(settings, path, settings.split, settings.classes or None, TRAIN_SPLITS)
    if known != found.class_names and set(known) == set(found.class_names) and not settings.classes:
        found = _open(settings, path, settings.split, known, TRAIN_SPLITS)
    train, warnings = _checked(found, settings, path, "train")
    if not any((~record.crowd).any() for record in train.records):
        raise UserError(
            f"{path}: no image of the split {found.split!r} has an object to train on; label some, or choose "
            "another split with --split"
        )
    if settings.skip_empty:
        train = replace(train, records=tuple(record for record in train.records if _trains(record, settings)))
    if settings.overfit is not None:
        train = replace(train, records=train.records[: settings.overfit])
        seen = {record.id for record in train.records}
        return RunData(train, replace(found, records=tuple(r for r in found.records if r.id in seen)), warnings)
    if settings.limit is not None:
        if settings.limit > len(train):
            warnings.append(f"data.limit is {settings.limit}, but there are only {len(train)} images: all are used")
        train = _drawn(train, settings.limit)
    val, more = _open_val(settings, path, train)
    return RunData(train, val, warnings + more)


def limit_notes(data: RunData, detections: int) -> list[str]:
    """What the data have more of than a detector that keeps so many detections can find.

    What COCO's metric cannot count is already a warning of the check.
    """
    notes = []
    for part in (data.train, data.val):
        if part is not None and (note := detector_note(part, detections)):
            notes.append(f"{part.split}: {note}")
    return notes


def open_cache(settings: Data, train: Dataset, processes: int) -> ImageCache | None:
    """Where decoded images are kept, if the recipe asks for it.

    Raises:
        UserError: there is not enough memory, or no place on the disk; or the user wants nothing to be kept there.
    """
    if settings.cache == "none":
        return None
    if settings.cache == "disk" and switched_off():
        raise UserError(
            f"data.cache disk: {VARIABLE} is empty, so nothing is kept on the disk. Set it to a folder, or use "
            "data.cache ram"
        )
    folder = cache_folder("images")
    return ImageCache(settings.cache, train.records, folder, reading=str(settings.deep_range), copies=processes)


def _open(
    settings: Data, path: str, split: str | None, class_names: tuple[str, ...] | None, prefer: tuple[str, ...]
) -> Dataset:
    """A split of the data, with its bad images: the check handles those."""
    how: dict[str, Any] = {"format": settings.format, "allow_outside": settings.allow_outside, "strict": False}
    return open_dataset(path, split=split, class_names=class_names, prefer=prefer, **how)


def _checked(found: Dataset, settings: Data, path: str, purpose: str) -> tuple[Dataset, list[str]]:
    """The usable images of a split, with corrected boxes, and what the check says. `purpose`: "train" or "validate"."""
    usable, report = check(found, skip_bad=settings.skip_bad, deep_range=DeepRange.of(settings.deep_range))
    if not len(usable):
        raise UserError(
            f"{path}: no image of the split {found.split!r} is left to {purpose} on; `singleshot data check` says why"
        )
    name = {"train": "training", "validate": "validation"}[purpose]
    return usable, [f"{name} data: {report.text(10)}"] if report.errors or report.warnings else []


def _drawn(dataset: Dataset, count: int) -> Dataset:
    """A random choice of `count` images, the same for every seed. A larger choice contains every smaller one."""
    order = np.random.default_rng(0).permutation(len(dataset))
    return replace(dataset, records=tuple(dataset.records[k] for k in sorted(order[:count])))


def _trains(record: ImageRecord, settings: Data) -> bool:
    """Whether an image has an object to train on."""
    left_out = record.crowd | record.difficult if settings.drop_difficult else record.crowd
    return bool((~left_out).any())


def _open_val(settings: Data, path: str, train: Dataset) -> tuple[Dataset | None, list[str]]:
    if settings.val_split == "none":
        return None, []
    split = settings.val_split
    if split is None and settings.val_path is None:
        split = find_split("val", train.splits)
        if split is None or split == train.split:
            return None, [
                f"no validation: no split is named val among {', '.join(train.splits)}; make one with "
                "`singleshot data split`, or choose one with --val-split"
            ]
    path = settings.val_path or path
    found = _open(settings, path, split, train.class_names, ("val",))
    corrected, warnings = _checked(found, settings, path, "validate")
    # Validation uses the boxes of the files. The check only decides which images can be used at all.
    usable = {record.id for record in corrected.records}
    records = tuple(record for record in found.records if record.id in usable)
    learnt = {record.path for record in train.records}
    if common := sum(record.path in learnt for record in records):
        warnings.append(
            f"{common} of the {len(records)} images to validate on are trained on too: the figures will be too good. "
            "Choose another split with --val-split"
        )
    return replace(found, records=records), warnings


def worker_count(workers: int | None, processes: int = 1) -> int:
    """Loader processes for each training process: as asked, or one less than its share of the cores."""
    if workers is not None:
        return workers
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    return max(1, min(8, cores // processes - 1))


def build_transform(settings: Augmentation, preprocess: Preprocess) -> Transform:
    """The augmentation of a recipe. It ends with the final size, so the detector's `preprocess` does not resize again.

    Exception: torchvision's size rule still changes a few images in a hundred, by one pixel.

    If `preprocess` keeps the aspect ratio (`KeepAspect`), the last step here does so too: the ratio of the whole image
    or, after a crop, of the crop. Its short-side jitter is drawn here as well, from the random numbers of the sample.
    So a run is the same with any number of workers, and when it is resumed. One of five interpolations is drawn, as in
    SSD. An image that keeps its aspect ratio and is only mirrored is resized linearly, as in RetinaNet.

    Raises:
        UserError: `augmentation.jitter` is not a pair of zooms, or is combined with expand or crop.
    """
    size: Target = preprocess.training_fit if isinstance(preprocess, KeepAspect) else preprocess.size
    red, green, blue = (255.0 * float(value) for value in preprocess.pixels.mean)
    mean = (red, green, blue)  # of the canvas
    first: list[Transform] = []
    if settings.vertical_flip:
        first.append(VerticalFlip())
    if settings.quarter_turns:
        first.append(QuarterTurn())
    photometric = PhotometricDistortion() if settings.photometric else None
    mirror = Mirror() if settings.flip else None
    if settings.jitter:
        if len(settings.jitter) != 2 or not 0 < settings.jitter[0] <= settings.jitter[1]:
            raise UserError(
                f"augmentation.jitter: expected the smallest and the largest zoom, such as [0.7, 1.5], "
                f"got {settings.jitter}"
            )
        if settings.expand or settings.crop:
            raise UserError(
                "augmentation.jitter cannot be combined with expand and crop, which it replaces: switch both of them "
                "off, or switch jitter off with augmentation.jitter: []"
            )
        low, high = settings.jitter
        steps = (photometric, ScaleJitter(size, mean, (low, high)), mirror)
        return Compose((*first, *(step for step in steps if step is not None)))
    augmenting = settings.photometric or settings.expand or settings.crop or (settings.flip and isinstance(size, tuple))
    ssd = SSDAugmentation(
        resize=Resize(size, INTERPOLATIONS) if augmenting else Resize(size),
        photometric=photometric,
        expand=Expand(mean, settings.expand_maximum) if settings.expand else None,
        crop=SamplerCrop(scale=(settings.crop_scale, 1.0)) if settings.crop else None,
        mirror=mirror,
    )
    return Compose((*first, ssd))


# -------------------------------------------------------------------------------------------------------------- machine
def choose_precision(asked: str, device: torch.device) -> str:
    """The asked precision. "auto": bf16 if the machine computes in it (AMX, AVX512-bf16, CUDA), else fp32."""
    return fastest_precision(device) if asked == "auto" else asked
