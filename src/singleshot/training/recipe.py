"""The recipe: every choice of a training run, as plain data.

A recipe names the builder of the detector and its arguments, the data, the augmentation and the optimisation. It is
saved in the run folder as `recipe.yaml`, and training from that file repeats the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from singleshot.data.formats import FORMATS
from singleshot.errors import UserError
from singleshot.plain_data import from_plain, load_yaml, merge, to_plain, to_yaml_text


@dataclass(frozen=True)
class Published:
    """A figure that somebody published for these settings. Never a promise: what was measured stands in the results."""

    metric: str  # what was measured, and on which images
    value: float  # in per cent
    source: str


@dataclass(frozen=True)
class Data:
    """Which images, and what is done about the awkward ones."""

    path: str | None = None  # folder or annotation file
    format: str | None = None  # one of `singleshot data formats`; None: found by itself
    split: str | None = None  # None: `train`, `trainval`, or the only one
    val_path: str | None = None  # None: the same as `path`
    val_split: str | None = None  # None: `val` where the data has one; "none": no validation
    classes: tuple[str, ...] = ()  # names in the order of the labels; empty: as the data has them
    drop_difficult: bool = False  # True: objects marked difficult (VOC) are not trained on
    crowd: Literal["drop", "ignore"] = "drop"  # crowd regions (COCO): left out, or no negatives inside
    skip_empty: bool = False  # True: images without an object to train on are left out
    skip_bad: bool = False  # True: what the check calls an error is left out instead of stopping
    # Train and validate on the first so many images alone: who cannot learn 20 images by heart has a mistake somewhere.
    overfit: int | None = None
    limit: int | None = None  # train on so many images alone, drawn evenly: what fewer labels would give
    workers: int | None = None  # processes that prepare images; None: by the number of cores

    def __post_init__(self) -> None:
        if self.format == "none":  # "none" is a word for null where the words are those of a list
            object.__setattr__(self, "format", None)


@dataclass(frozen=True)
class Augmentation:
    """The random changes to a training image, in the order in which they are made (SSD, section 2.2 and 3.6).

    The size at the end is the detector's: one for all, or by a rule that keeps the aspect ratio, with or without a
    short side drawn for each image (RetinaNet's scale jitter, an argument of its builder).
    """

    photometric: bool = True  # brightness, contrast, saturation, hue
    expand: bool = True  # the image on a canvas up to 4 x 4 times as large ("zoom out")
    crop: bool = True  # the seven samplers ("zoom in")
    flip: bool = True  # mirror every second image
    expand_maximum: float = 4.0  # largest side of the canvas, in sides of the image
    crop_scale: float = 0.3  # smallest scale of a crop
    jitter: tuple[float, ...] = ()  # (smallest, largest) zoom, in place of expand and crop: gentler
    vertical_flip: bool = False  # where a picture has no up and down: cells, surfaces, views from above
    quarter_turns: bool = False


@dataclass(frozen=True)
class Optimizer:
    """How a gradient becomes a step."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 1e-3  # at `base_batch_size` images per step
    base_batch_size: int = 32  # lr is multiplied by (images per step) / base_batch_size; 0: never scaled
    momentum: float = 0.9  # sgd; the first beta of adam and adamw
    beta2: float = 0.999  # adam, adamw
    nesterov: bool = False
    weight_decay: float = 5e-4
    bias_lr_factor: float = 2.0  # biases of convolutions learn at this multiple of the rate
    bias_decay: bool = False  # True: biases decay too
    norm_decay: bool = True  # False: scale and shift of batch norm do not decay
    # The next two are for a backbone that somebody has trained: one that is drawn anew learns as a whole, from the
    # first step, at the full rate (`resolve.with_nothing_to_keep`, also about the builder's `frozen_stages`).
    backbone_lr_factor: float = 1.0  # the backbone learns at this multiple of the rate
    freeze_norm_steps: int = 0  # batch norm of the backbone keeps its statistics for so many steps; -1: always
    clip_norm: float | None = None  # the gradient's norm is cut to this
    # Batches per step. They give the loss and the gradient of one batch with all their images, but for what a batch
    # decides in itself: the statistics of batch norm, and the size that images of different shapes are padded to.
    accumulate: int = 1


@dataclass(frozen=True)
class Schedule:
    """The length of a run and the rate over it."""

    # The length, in one of three units; where several are given the last one counts, and stretches the milestones.
    steps: int | None = None  # optimiser steps, to which `milestones` refers
    images: int | None = None  # images shown, repeats counted: as many, whatever a batch and the data hold
    epochs: float | None = None  # passes over the data
    kind: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[int, ...] = ()  # steps at which the rate is multiplied by `gamma`
    gamma: float = 0.1
    final_factor: float = 0.0  # cosine ends at this multiple of the rate
    warmup_steps: int = 0  # the rate rises linearly over so many steps ...
    warmup_start: float = 0.1  # ... from this multiple

    @property
    def unit(self) -> str | None:
        """The field that says how long to train: the first of `LENGTHS` that is given; None: no length is."""
        return next((unit for unit in LENGTHS if getattr(self, unit) is not None), None)


LENGTHS = ("epochs", "images", "steps")  # fields of `Schedule`: the first that is given counts


@dataclass(frozen=True)
class Ema:
    """The exponential moving average of the weights, which is evaluated and saved in place of them."""

    decay: float | None = None  # None: no average
    ramp: float = 10.0  # the average starts as min(decay, (1 + step) / (ramp + step))


@dataclass(frozen=True)
class Validation:
    """When the detector is measured during training, and what follows from it."""

    every: float = 1.0  # epochs
    times: int | None = None  # in place of `every`: so many times, evenly, whatever the number of images
    metric: str = "coco.AP"  # what "best" means: coco.AP, coco.AP50, voc07.mAP, voc10.mAP
    patience: int | None = None  # stop after so many validations without a better one
    batch_size: int = 8  # images


@dataclass(frozen=True)
class Compute:
    """The machine."""

    device: str = "auto"  # "cpu", "cuda", "cuda:1"; auto: CUDA where there is one
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of the network; losses and boxes are float32 always
    compile: bool = False  # torch.compile for the network
    channels_last: bool = False


@dataclass(frozen=True)
class Log:
    """What is written down, and how often."""

    every: int = 20  # steps
    save_every: int | None = None  # steps; the state is saved after each validation at least ...
    save_minutes: float = 5.0  # ... and after so many minutes
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A whole training run. Every field is plain data, so that a file can hold it."""

    name: str = "custom"
    expected: tuple[Published, ...] = ()
    builder: str = "ssd"  # a builder of this package, or a dotted path "my_lab.models:my_detector"
    arguments: dict[str, Any] = field(
        default_factory=dict
    )  # for the builder; number and names of classes come from the data
    # What `arguments` leaves open, for builders that take it, and not for a network that `start_from` describes; null:
    # the builder's own.
    defaults: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None  # a trained detector's file to go on from
    # What `start_from` means for builder and arguments. "own": these here count; what they leave open is as in the
    # file, if that has the same builder. "file": the file's count. "needed": as "own", and there has to be a file.
    start: Literal["own", "file", "needed"] = "own"
    batch_size: int = 32  # images per process and batch; a step takes batch_size x processes x optimizer.accumulate
    seed: int = 0
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule(steps=120_000)
    ema: Ema = Ema()
    validation: Validation = Validation()
    compute: Compute = Compute()
    log: Log = Log()


METRICS = (
    *(
        f"coco.{name}"
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    ),
    "voc07.mAP",
    "voc10.mAP",
)
"""What "best" may mean: the numbers of `singleshot evaluate`, by group and name."""


def check_values(recipe: Recipe) -> None:
    """Refuse values that no run can have, before anything is opened.

    Raises:
        UserError: naming the field, what it is and what it may be.
    """
    optimizer, data, validation, log, ema = recipe.optimizer, recipe.data, recipe.validation, recipe.log, recipe.ema
    beta, decay, workers = optimizer.momentum, ema.decay, data.workers
    clip, every, times = optimizer.clip_norm, log.save_every, validation.times
    rules = (
        ("batch_size", recipe.batch_size, recipe.batch_size >= 1, "1 or more"),
        ("seed", recipe.seed, 0 <= recipe.seed < 2**63, "0 or more, below 2**63"),
        ("data.format", data.format, data.format is None or data.format in FORMATS, f"null or {', '.join(FORMATS)}"),
        ("data.overfit", data.overfit, data.overfit is None or data.overfit >= 1, "1 or more images, or null"),
        ("data.limit", data.limit, data.limit is None or data.limit >= 1, "1 or more images, or null"),
        ("data.workers", workers, workers is None or workers >= 0, "0 or more processes, or null"),
        ("optimizer.lr", optimizer.lr, optimizer.lr >= 0, "0 or more"),
        ("optimizer.momentum", beta, 0 <= beta < 1, "0 or more, below 1"),
        ("optimizer.beta2", optimizer.beta2, 0 <= optimizer.beta2 < 1, "0 or more, below 1"),
        ("optimizer.nesterov", optimizer.nesterov, not optimizer.nesterov or beta > 0, "false where momentum is 0"),
        ("optimizer.weight_decay", optimizer.weight_decay, optimizer.weight_decay >= 0, "0 or more"),
        ("optimizer.clip_norm", clip, clip is None or clip > 0, "more than 0, or null"),
        ("optimizer.accumulate", optimizer.accumulate, optimizer.accumulate >= 1, "1 or more"),
        ("ema.decay", decay, decay is None or 0 < decay < 1, "a number between 0 and 1, or null"),
        ("ema.ramp", ema.ramp, ema.ramp > 0, "more than 0"),
        ("log.every", log.every, log.every >= 1, "1 or more"),
        ("log.save_every", every, every is None or every >= 1, "1 or more steps, or null"),
        ("validation.every", validation.every, validation.every > 0, "more than 0"),
        ("validation.times", times, times is None or times >= 1, "1 or more, or null"),
        ("validation.batch_size", validation.batch_size, validation.batch_size >= 1, "1 or more"),
        ("validation.metric", validation.metric, validation.metric in METRICS, ", ".join(METRICS)),
    )
    for name, value, right, expected in rules:
        if not right:
            raise UserError(f"{name} is {value}; expected {expected}")


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with some fields replaced, named by dotted keys.

    Args:
        changes: such as {"optimizer.lr": "0.01", "arguments.backbone": "mobilenetv2"}; text is read as YAML where the
            field is not text.

    Raises:
        UserError: an unknown key (the nearest known ones are named), or a value of the wrong type.
    """
    tree = to_plain(recipe)
    _make_way(tree, changes)
    for key, value in changes.items():
        merge(Recipe, tree, key, value)
    return from_plain(Recipe, tree)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text; `from_yaml` of it gives an equal recipe."""
    return to_yaml_text(to_plain(recipe))


def from_yaml(path: str | Path, *, base: Recipe | None = None) -> Recipe:
    """Read a recipe from a YAML file; what the file does not say comes from `base`.

    Raises:
        UserError: no such file, broken YAML (with its line), an unknown key or a value of the wrong type.
    """
    return from_tree(load_yaml(Path(path)), where=str(path), base=base)


def from_tree(tree: dict[str, Any], *, where: str = "recipe", base: Recipe | None = None) -> Recipe:
    """A recipe from nested dicts, on top of `base`; `arguments` are replaced key by key."""
    merged = to_plain(base or Recipe())
    _make_way(merged, tree, where)
    for key, value in tree.items():
        merge(Recipe, merged, key, value, where=where)
    return from_plain(Recipe, merged, where=where)


def _make_way(tree: dict[str, Any], changes: dict[str, Any], where: str = "") -> None:
    """Who gives a length or an interval in one unit means it: what would win over it no longer counts."""
    asked = _asked(changes, "schedule")
    unit = from_plain(Schedule, asked, where=where, path="schedule.").unit
    for other in LENGTHS[: LENGTHS.index(unit)] if unit else ():
        tree["schedule"][other] = None
    if unit not in (None, "steps") and "milestones" in asked:
        tree["schedule"]["steps"] = None  # these refer to the run itself, not to a length that nobody asked for
    if "every" in _asked(changes, "validation"):
        tree["validation"]["times"] = None


def _asked(changes: dict[str, Any], group: str) -> dict[str, Any]:
    """What is said of a group of fields, under its own key or under dotted ones."""
    nested = changes.get(group)
    dotted = {key.removeprefix(f"{group}."): value for key, value in changes.items() if key.startswith(f"{group}.")}
    return {**(nested if isinstance(nested, dict) else {}), **dotted}
