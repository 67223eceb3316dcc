"""From a recipe to the objects of a run: data, augmentation, detector."""

from __future__ import annotations

import hashlib
import inspect
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from singleshot.data.check import check
from singleshot.data.dataset import Dataset, ImageRecord
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
from singleshot.detectors.detector import Detector
from singleshot.detectors.parts import from_plain, to_plain
from singleshot.detectors.registry import BUILDERS, find_builder, remembers_arguments
from singleshot.detectors.transfer import transfer
from singleshot.errors import UserError
from singleshot.preprocess import KeepAspect, Preprocess
from singleshot.training.recipe import Augmentation, Data, Recipe
from singleshot.weights import checkpoint

TRAIN_SPLITS = ("train", "trainval")
FEW_IMAGES = 5_000  # from fewer it is said that pretrained weights would help (docs/results.md: of 205 and 500)


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class RunData:
    """What is trained on, and what is measured on: `val` has the files' own boxes."""

    train: Dataset
    val: Dataset | None
    warnings: list[str]

    @property
    def fingerprint(self) -> str:
        """Tells whether two runs see the same training images and boxes."""
        digest = hashlib.sha256(repr((self.train.class_names, len(self.train))).encode())
        for record in self.train.records:
            digest.update(record.name.encode() + record.boxes.tobytes() + record.labels.tobytes())
        return digest.hexdigest()[:16]


def open_data(recipe: Recipe, known: tuple[str, ...] = ()) -> RunData:
    """Open and check the images of a recipe.

    `known` are the classes of a detector to go on from: if the data has the same ones, its order counts.
    """
    settings = recipe.data
    if settings.path is None:
        raise UserError("no data: give the folder or the annotation file to train on (recipe: data.path)")

    def open_in(class_names: tuple[str, ...] | None) -> Dataset:
        return open_dataset(
            settings.path or "",
            split=settings.split,
            format=settings.format,
            class_names=class_names,
            prefer=TRAIN_SPLITS,
            strict=False,
        )

    found = open_in(settings.classes or None)
    if known != found.class_names and set(known) == set(found.class_names) and not settings.classes:
        found = open_in(known)
    train, report = check(found, skip_bad=settings.skip_bad)
    warnings = [f"training data: {report.text(10)}"] if report.errors or report.warnings else []
    if not len(train):
        raise UserError(f"{settings.path}: no image of the split {found.split!r} is left to train on")
    if not any((~record.crowd).any() for record in train.records):
        raise UserError(f"{settings.path}: no image of the split {found.split!r} has an object to train on")
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
    val, more = _open_val(recipe, train)
    return RunData(train, val, warnings + more)


def _drawn(dataset: Dataset, count: int) -> Dataset:
    """So many images, the same ones for every seed; those of a smaller count are among those of a larger."""
    order = np.random.default_rng(0).permutation(len(dataset))
    return replace(dataset, records=tuple(dataset.records[k] for k in sorted(order[:count])))


def _trains(record: ImageRecord, settings: Data) -> bool:
    """Whether an image has an object to train on."""
    left_out = record.crowd | record.difficult if settings.drop_difficult else record.crowd
    return bool((~left_out).any())


def _open_val(recipe: Recipe, train: Dataset) -> tuple[Dataset | None, list[str]]:
    settings = recipe.data
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
    found = open_dataset(
        settings.val_path or settings.path or "",
        split=split,
        format=settings.format,
        class_names=train.class_names,
        prefer=("val",),
        strict=False,
    )
    mended, report = check(found, skip_bad=settings.skip_bad)
    # Measured are the boxes of the files: the check only says which images can be used at all.
    usable = {record.id for record in mended.records}
    records = tuple(record for record in found.records if record.id in usable)
    if not records:
        raise UserError(
            f"{settings.val_path or settings.path}: no image of the split {found.split!r} is left to validate on"
        )
    warnings = [f"validation data: {report.text(10)}"] if report.errors or report.warnings else []
    learnt = {record.path for record in train.records}
    if common := sum(record.path in learnt for record in records):
        warnings.append(
            f"{common} of the {len(records)} images to validate on are trained on too: the figures will be too good"
        )
    return replace(found, records=records), warnings


def worker_count(workers: int | None, processes: int = 1) -> int:
    """Processes that prepare images for each one that trains: as asked, or one less than its share of the cores."""
    if workers is not None:
        return workers
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    return max(1, min(8, cores // processes - 1))


def build_transform(settings: Augmentation, preprocess: Preprocess) -> Transform:
    """The augmentation of a recipe, ending in images that the detector's `preprocess` does not resize any more.

    Where that keeps the aspect ratio (`KeepAspect`) so does the last step here: of the whole image or, after a crop, of
    the crop. Its short-side jitter is drawn here too, from the random numbers of the sample, so that a run is the same
    with any number of workers, and resumed. The five interpolations are drawn from as SSD does; an image that keeps its
    aspect and has nothing of SSD's augmentation but the mirror is resized linearly, as RetinaNet's is.
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
                f"augmentation.jitter: expected two growing zooms such as [0.7, 1.5], got {settings.jitter}"
            )
        if settings.expand or settings.crop:
            raise UserError(
                "augmentation.jitter replaces expand and crop: switch both off (augmentation.expand, .crop: false)"
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


# ------------------------------------------------------------------------------------------------------------ detector
def choose_precision(asked: str, device: torch.device) -> str:
    """bf16 where the machine computes in it (AMX, AVX512-bf16, CUDA), fp32 elsewhere; or what is asked for."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return "bf16" if any(getattr(torch.cpu, test, bool)() for test in tests) else "fp32"
    return "fp32"


def resolve_start(recipe: Recipe) -> tuple[Recipe, Detector | None]:
    """The detector to go on from, if any, and the recipe with what it leaves open filled in (`Recipe.start`).

    Raises:
        UserError: no file where one is needed, a file that cannot be read, backbone weights beside it.
    """
    if recipe.start_from is None:
        if recipe.start == "needed":
            raise UserError(f"{recipe.name} goes on from a trained detector: give its file with --from (start_from)")
        if recipe.builder in BUILDERS and recipe.arguments.get("backbone_weights") is None:
            recipe = _with_nothing_to_keep(recipe)
        return recipe, None
    named = file_builder(recipe.start_from)
    own = find_builder(recipe.builder) if named is None and ":" in recipe.builder else None
    source = checkpoint.load(recipe.start_from, builder=own)
    # The file's own weights count; which backbone weights it once began with does not.
    leave = ("num_classes", "class_names", "category_ids", "backbone_weights")
    builder = named or recipe.builder
    file_arguments = {key: to_plain(value) for key, value in source.arguments.items() if key not in leave}
    if recipe.start == "file":
        return replace(recipe, builder=builder, arguments=file_arguments, start="own"), source
    if recipe.arguments.get("backbone_weights") is not None:
        raise UserError(
            f"weights come from {recipe.start_from} (--from) or from {recipe.arguments['backbone_weights']} "
            "(--backbone-weights): leave one of them out"
        )
    kept = file_arguments if recipe.builder == builder else {}
    return replace(recipe, arguments={**kept, **recipe.arguments}), source


def _with_nothing_to_keep(recipe: Recipe) -> Recipe:
    """The recipe for a backbone that is drawn anew: all of it learns, from the first step, at the full rate."""
    arguments = {key: value for key, value in recipe.arguments.items() if key != "frozen_stages"}
    optimizer = replace(recipe.optimizer, backbone_lr_factor=1.0, freeze_norm_steps=0)
    return replace(recipe, arguments=arguments, optimizer=optimizer)


def file_builder(path: str | Path) -> str | None:
    """The builder of this package that a detector's file names; None: it was made by one of the user's own."""
    name = str(checkpoint.read_metadata(path)["detector"])
    return name if name in BUILDERS else None


def with_explicit(recipe: Recipe, start_from: str, builder: str | None) -> Recipe:
    """A recipe that leaves builder and arguments to the file, made ready for some that the user has chosen himself.

    `builder`: the chosen one, None for none. If it is that of the file, arguments that are set afterwards are all that
    differs from the file's; if it is another, the recipe's own arguments are what the others begin from.
    """
    if recipe.start != "file":
        return recipe
    named = file_builder(start_from)
    if builder is None or builder == named or (named is None and ":" in builder):
        recipe = replace(recipe, builder=named or builder or recipe.builder, arguments={})
    return replace(recipe, start="own")


def build_detector(recipe: Recipe, data: Dataset, source: Detector | None = None) -> tuple[Detector, list[str]]:
    """The detector of a recipe for the classes of the data, with the weights of `source` where they fit (`transfer`).

    Returns the detector and what is to be said about it.
    """
    build = find_builder(recipe.builder)
    if ":" in recipe.builder and not hasattr(build, "__wrapped__"):
        build = remembers_arguments(build)
    arguments: dict[str, Any] = from_plain(recipe.arguments)
    if source is not None:
        arguments.pop("backbone_weights", None)  # all weights come from the source
    if recipe.data.crowd == "ignore" and "ignore_crowd" in inspect.signature(build).parameters:
        arguments.setdefault("ignore_crowd", True)  # the loader passes the regions on; the matcher has to know them
    classes = {"class_names": data.class_names, "category_ids": data.category_ids}
    detector = build(num_classes=len(data.class_names), **classes, **arguments)
    if source is None:
        weights = arguments.get("backbone_weights")
        if weights is not None:  # in a weights file that is passed on, the name says what there is to say
            detector.arguments = {**detector.arguments, "backbone_weights": Path(str(weights)).name}
        if weights:
            return detector, [f"backbone weights: {weights}"]
        said = "all weights are drawn anew (no --backbone-weights, no --from), and all of the backbone learns"
        if len(data) < FEW_IMAGES:
            said += f"; from {len(data)} images it would learn far more with ImageNet's (docs/how_to/small_data.md)"
        return detector, [said]
    taken = transfer(source, detector)
    fits = "" if taken.taken or taken.partly else "; nothing of it fits this detector: all weights are drawn anew"
    return detector, [f"from {recipe.start_from}: {taken.text()}{fits}"]


def absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with every file named from the root, so that it means the same from another folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())

    arguments = dict(recipe.arguments)
    if isinstance(arguments.get("backbone_weights"), str):
        arguments["backbone_weights"] = absolute(arguments["backbone_weights"])
    data = replace(recipe.data, path=absolute(recipe.data.path), val_path=absolute(recipe.data.val_path))
    return replace(recipe, arguments=arguments, start_from=absolute(recipe.start_from), data=data)


def without_paths(tree: Any) -> Any:
    """The recipe as it goes into a weights file: files by name only, since that file is passed on to others."""
    if isinstance(tree, dict):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return [without_paths(value) for value in tree]
    return Path(tree).name if isinstance(tree, str) and os.path.isabs(tree) else tree
