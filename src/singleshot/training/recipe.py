"""The recipe: every choice of a training run, as plain data.

A recipe names the builder of the detector and its arguments, the data, the augmentation and the optimisation. It is
saved in the run folder as `recipe.yaml`, and training from that file repeats the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from singleshot.paths import to_path
from singleshot.plain_data import from_plain, merge, to_plain
from singleshot.ranges import MOST_IMAGES, MOST_WORKERS, within
from singleshot.yaml_text import load_yaml, to_yaml_text

T = TypeVar("T")


def about(default: T, text: str, **limits: float) -> T:
    """A field with its default and its meaning in one line (`singleshot recipes NAME` prints it).

    `limits`: the range of its number, or of each of its numbers, as `ranges.within` takes it. docs/settings.md has it.
    """
    return field(default=default, metadata={"about": text, **(within(**limits) if limits else {})})


class FromFile(str):
    """A name as a recipe's file has it. No file decides which code runs, nor what is fetched over the network.

    A builder of the user's own counts only when the user gives its name too: `--builder`, `train(builder=...)`,
    `override`. Published weights are taken if they are here, and not fetched.
    """

    __slots__ = ()


@dataclass(frozen=True)
class Published:
    """A figure that others published for these settings. Not a promise: docs/results.md has what was measured here."""

    metric: str = field(metadata={"about": "on which images, and what was measured there"})
    value: float = field(metadata={"about": "in per cent", **within(least=0, most=100)})
    source: str = field(metadata={"about": "the paper and its table"})


@dataclass(frozen=True)
class Data:
    """Which images are used, and how difficult, crowd, empty and bad ones are treated."""

    path: str | None = about(None, "folder or annotation file")
    format: str | None = about(None, "one of `singleshot data formats`; null: detected automatically")
    split: str | None = about(None, "split to train on; null: train, trainval, or the only one")
    val_path: str | None = about(None, "where the images to validate on are; null: in the same place")
    val_split: str | None = about(None, "split to validate on; null: val where the data has it; none: no validation")
    classes: tuple[str, ...] = about((), "class names in the order of the labels; []: as the data has them")
    drop_difficult: bool = about(False, "true: objects marked difficult (VOC) are not trained on")
    crowd: Literal["drop", "ignore"] = about("drop", "crowd regions (COCO): drop, or ignore (nothing is learnt inside)")
    skip_empty: bool = about(False, "true: images without an object to train on are left out")
    skip_bad: bool = about(False, "true: images with errors in the check are left out; false: they stop the run")
    allow_outside: bool = about(False, "true: annotations may name images outside of `path`; false: this is an error")
    # A detector that cannot learn 20 images by heart shows a mistake in data or settings.
    overfit: int | None = about(
        None, "train and validate on this many images, the first ones; null: on all", least=1, most=10**9
    )
    limit: int | None = about(None, "train on this many images, drawn evenly; null: on all", least=1, most=10**9)
    deep_range: tuple[float, ...] = about(
        (),
        "[black, white] values of grey images of more than 8 bits, such as [0, 4095]; []: the range of the type",
        least=-(2**31),
        most=2**32,
    )
    workers: int | None = about(
        None, "processes that prepare images; null: by the number of cores", least=0, most=MOST_WORKERS
    )

    cache: Literal["none", "ram", "disk"] = about(
        "none", "keep decoded images: none, ram (shared by the processes that prepare images), disk"
    )

    def __post_init__(self) -> None:
        if self.format == "none":  # lists of choices on the command line have no null: "none" stands for it
            object.__setattr__(self, "format", None)


@dataclass(frozen=True)
class Augmentation:
    """The random changes to a training image.

    They are SSD's (sections 2.2 and 3.6), and some more. The final size comes from the detector: either one fixed size,
    or a rule that keeps the aspect ratio. That rule may draw the short side for each image (RetinaNet's scale jitter,
    an argument of its builder).
    """

    photometric: bool = about(True, "brightness, contrast, saturation and hue change")
    expand: bool = about(True, "the image is put on a larger canvas: objects become smaller (zoom out)")
    crop: bool = about(True, "a part of the image is taken by SSD's seven samplers: objects become larger (zoom in)")
    flip: bool = about(True, "half of the images are mirrored")
    expand_maximum: float = about(4.0, "largest side of the canvas, in sides of the image", least=1, most=10)
    crop_scale: float = about(0.3, "smallest side of a crop, in sides of the image", above=0, most=1)
    jitter: tuple[float, ...] = about(
        (), "[smallest, largest] zoom in place of expand and crop, gentler; []: none", above=0, most=10
    )
    vertical_flip: bool = about(False, "half of the images are turned upside down: cells, surfaces, views from above")
    quarter_turns: bool = about(
        False, "half of the images have their sides swapped; with both flips, all turns by 90 degrees"
    )


@dataclass(frozen=True)
class Optimizer:
    """How a gradient becomes a step."""

    name: Literal["sgd", "adam", "adamw"] = about("sgd", "sgd, adam or adamw")
    lr: float = about(1e-3, "learning rate at base_batch_size images in a step", least=0, most=1_000)
    base_batch_size: int = about(
        32, "the rate is multiplied by (images in a step) / this number; 0: never", least=0, most=10**6
    )
    momentum: float = about(0.9, "of sgd; the first beta of adam and adamw", least=0, below=1)
    beta2: float = about(0.999, "the second beta of adam and adamw", least=0, below=1)
    nesterov: bool = about(False, "true: sgd with Nesterov's momentum")
    weight_decay: float = about(5e-4, "of the weights of convolutions", least=0, most=1_000)
    bias_lr_factor: float = about(2.0, "biases of convolutions learn at this multiple of the rate", least=0, most=1_000)
    bias_decay: bool = about(False, "true: biases decay too")
    norm_decay: bool = about(True, "false: scale and shift of norms do not decay")
    # The next two fields are for a pretrained backbone. A backbone with random weights learns as a whole, from the
    # first step, at the full rate (`resolve.with_nothing_to_keep`, which also drops the builder's `frozen_stages`).
    backbone_lr_factor: float = about(
        1.0, "a trained backbone learns at this multiple of the rate", least=0, most=1_000
    )
    freeze_norm_steps: int = about(
        0, "a trained backbone's batch norm is fixed for this many steps; -1: always", least=-1, most=10**9
    )
    clip_norm: float | None = about(None, "the norm of the gradient is cut to this; null: never", above=0, most=10**9)
    # Equal except for what depends on one batch: batch norm's statistics, the padding of images of different shapes.
    accumulate: int = about(
        1, "batches in a step; their gradient is that of one batch with all their images", least=1, most=10**5
    )


@dataclass(frozen=True)
class Schedule:
    """The length of a run, and the rate over it.

    The length has one of four units. If several of epochs, images and steps are given, the first of them counts;
    minutes stand alone. The milestones are stretched to that length. By the clock the rate follows the share of the
    time that is used.
    """

    minutes: float | None = about(
        None, "length in minutes of wall clock, the last validation included; replaces all", above=0, most=525_600
    )
    steps: int | None = about(None, "length in steps of the optimiser; the milestones refer to it", least=1, most=10**9)
    images: int | None = about(None, "length in images shown, with repeats; replaces steps", least=1, most=10**12)
    epochs: float | None = about(None, "length in passes over the data; replaces images and steps", above=0, most=10**6)
    kind: Literal["step", "cosine", "constant"] = about("step", "the rate's course: step, cosine or constant")
    milestones: tuple[int, ...] = about((), "step: the rate is multiplied by gamma at these steps", least=0, most=10**9)
    gamma: float = about(0.1, "step: what the rate is multiplied by", least=0, most=1_000)
    final_factor: float = about(0.0, "cosine: ends at this multiple of the rate", least=0, most=1_000)
    warmup_steps: int = about(0, "the rate rises linearly over this many steps", least=0, most=10**9)
    warmup_start: float = about(0.1, "the multiple of the rate that the warm-up begins with", least=0, most=1_000)

    @property
    def unit(self) -> str | None:
        """The field that says how long to train: the first of `LENGTHS` that is given; None: none is given."""
        return next((unit for unit in LENGTHS if getattr(self, unit) is not None), None)


LENGTHS = ("minutes", "epochs", "images", "steps")  # fields of `Schedule`: the first that is given counts


@dataclass(frozen=True)
class Ema:
    """The exponential moving average of the weights; it is evaluated and saved in their place."""

    decay: float | None = about(
        None, "the share of the average that each step keeps; null: no average", above=0, below=1
    )
    ramp: float = about(10.0, "the average begins with min(decay, (1 + step) / (ramp + step))", above=0, most=10**9)


@dataclass(frozen=True)
class Validation:
    """When the detector is measured during training, and when training stops early."""

    every: float = about(1.0, "epochs from one validation to the next", above=0, most=10**6)
    times: int | None = about(
        None, "in place of every: the number of validations in the run, evenly spread", least=1, most=10**6
    )
    metric: str = about("coco.AP", "what best means: coco.AP, coco.AP50, voc07.mAP, voc10.mAP and others")
    patience: int | None = about(
        None, "stop after this many validations without a better one; null: never", least=1, most=10**6
    )
    batch_size: int = about(8, "images at a time", least=1, most=MOST_IMAGES)


@dataclass(frozen=True)
class Compute:
    """The machine."""

    device: str = about("auto", "cpu, cuda, cuda:N or mps; auto: cuda where there is one")
    # Losses and boxes are float32 always.
    precision: Literal["auto", "bf16", "fp32"] = about("auto", "of the network; auto: bf16 where the machine has it")
    compile: bool = about(False, "true: torch.compile for the network")
    channels_last: bool = about(True, "the memory format of the network's maps; true is faster on most machines")


@dataclass(frozen=True)
class Log:
    """What is written down, and how often."""

    every: int = about(20, "steps from one line of the log to the next", least=1, most=10**9)
    save_every: int | None = about(
        None, "save the state after this many steps too, not only after a validation", least=1, most=10**9
    )
    save_minutes: float = about(5.0, "save the state after this many minutes too", least=0, most=10**6)
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = about((), "tensorboard, wandb, mlflow")


@dataclass(frozen=True)
class Recipe:
    """A whole training run. Every field is plain data, so that a file can hold it."""

    name: str = about("custom", "names the recipe and its run folders")
    expected: tuple[Published, ...] = about((), "published figures for these settings")
    builder: str = about("ssd", "a detector of this package; your own, my_lab.models:my_detector, only with --builder")
    arguments: dict[str, Any] = field(
        default_factory=dict, metadata={"about": "for the builder; the classes come from the data"}
    )
    # Not for a network that `start_from` describes.
    defaults: dict[str, Any] = field(
        default_factory=dict,
        metadata={"about": "used where arguments is silent and the builder takes it; null: the builder's own"},
    )
    start_from: str | None = about(None, "the file of a trained detector to start from")
    # "own": builder and arguments here count; missing arguments come from the file, if it has the same builder.
    # "file": builder and arguments of the file count. "needed": as "own", and a file must be given.
    start: Literal["own", "file", "needed"] = about(
        "own", "own: builder and arguments here count; file: those of start_from; needed: own, with a start_from"
    )
    batch_size: int = about(
        32, "images in a batch, for each process; a step takes this x processes x accumulate", least=1, most=MOST_IMAGES
    )
    seed: int = about(0, "of everything random", least=0, below=2**63)
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule(steps=120_000)
    ema: Ema = Ema()
    validation: Validation = Validation()
    compute: Compute = Compute()
    log: Log = Log()


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with some fields replaced, named by dotted keys.

    Args:
        changes: such as {"optimizer.lr": "0.01", "arguments.backbone": "mobilenetv2"}. Text is read as YAML if the
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
    """Read a recipe from a YAML file. Fields that the file does not set come from `base`.

    A builder of your own that the file names is not imported (`FromFile`) before you name it yourself.

    Raises:
        UserError: no such file, broken YAML (with its line), an unknown key or a value of the wrong type.
    """
    return read_tree(load_yaml(to_path(path)), where=str(path), base=base)


def read_tree(tree: dict[str, Any], *, where: str, base: Recipe | None = None) -> Recipe:
    """`from_tree` of what a file holds: the user's own builder and names of weights are `FromFile`."""
    recipe = from_tree(tree, where=where, base=base)
    arguments = dict(recipe.arguments)
    if isinstance(weights := arguments.get("backbone_weights"), str):
        arguments["backbone_weights"] = FromFile(weights)
    return replace(
        recipe,
        builder=FromFile(recipe.builder) if ":" in recipe.builder else recipe.builder,
        arguments=arguments,
        start_from=None if recipe.start_from is None else FromFile(recipe.start_from),
    )


def from_tree(tree: dict[str, Any], *, where: str = "recipe", base: Recipe | None = None) -> Recipe:
    """A recipe from nested dicts, on top of `base`. `arguments` are replaced key by key."""
    merged = to_plain(base or Recipe())
    _make_way(merged, tree, where)
    for key, value in tree.items():
        merge(Recipe, merged, key, value, where=where)
    return from_plain(Recipe, merged, where=where)


def _make_way(tree: dict[str, Any], changes: dict[str, Any], where: str = "") -> None:
    """A length or an interval that the user gives must count: clear the other units that would replace it."""
    asked = _asked(changes, "schedule")
    unit = from_plain(Schedule, asked, where=where, path="schedule.").unit
    for other in LENGTHS[: LENGTHS.index(unit)] if unit else ():
        tree["schedule"][other] = None
    if unit == "minutes":
        tree["schedule"].update(epochs=None, images=None)
        if not tree["schedule"]["milestones"]:
            tree["schedule"]["steps"] = None  # only milestones refer to it
    if unit not in (None, "steps") and "milestones" in asked:
        tree["schedule"]["steps"] = (
            None  # the given milestones refer to this run: do not stretch them from the base recipe's steps
        )
    if "every" in _asked(changes, "validation"):
        tree["validation"]["times"] = None


def _asked(changes: dict[str, Any], group: str) -> dict[str, Any]:
    """The changes to one group of fields, given under its own key or under dotted keys."""
    nested = changes.get(group)
    dotted = {key.removeprefix(f"{group}."): value for key, value in changes.items() if key.startswith(f"{group}.")}
    return {**(nested if isinstance(nested, dict) else {}), **dotted}
