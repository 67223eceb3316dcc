"""Which runs are made: data, settings and seeds, fixed before the first of them; and what each set is to reach."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from singleshot.errors import UserError

MOBILENET = "--backbone-weights $DATA/weights/mobilenet_v2_imagenet.safetensors"


@dataclass(frozen=True)
class Run:
    """One run of `singleshot train`."""

    name: str
    detector: str
    dataset: str
    arguments: tuple[str, ...]  # of the command, beside DATA and --out; none has a space inside

    def command(self, folder: str) -> str:
        """$DATA is the folder that holds the sets."""
        return f"singleshot train $DATA/{self.dataset} {' '.join(self.arguments)} --out {folder}"

    @property
    def by_heart(self) -> int | None:
        """The number of images that it is trained and measured on, where these are the same few."""
        words = " ".join(self.arguments).split()
        return int(words[words.index("--data.overfit") + 1]) if "--data.overfit" in words else None

    @property
    def measured_on(self) -> str:
        """Names the images that the figures are of."""
        return self.dataset if self.by_heart is None else f"{self.dataset}-{self.by_heart}"


@dataclass(frozen=True)
class Aim:
    """A figure that the runs of a set (`Run.measured_on`) are to reach with their last weights."""

    metric: str  # dotted path in the JSON of `singleshot evaluate`
    figure: float
    detector: str | None = None  # None: every detector

    @property
    def name(self) -> str:
        """As a reader knows it."""
        group, metric = self.metric.split(".")
        return {"coco": metric, "voc07": "VOC07 mAP", "voc10": "VOC10 mAP"}[group]


AIMS: dict[str, tuple[Aim, ...]] = {
    "bccd": (Aim("coco.AP", 0.58), Aim("coco.AP50", 0.91)),
    "chess": (Aim("coco.AP50", 0.985),),
}

FINETUNE = ("--format voc", "--recipe finetune", MOBILENET)
# Both sets were taken with one camera at one distance. Chosen on a part of bccd's training images (160 to train on, 45
# to choose by, 16 epochs): AP 0.529 against 0.496 with the authors' scales of crop and expansion.
GENTLE = ("--augmentation.crop_scale 0.5", "--augmentation.expand_maximum 2")
CHEAP = ("--arguments.frozen_stages 2", "--compute.channels_last true")
CELLS = (*CHEAP, *GENTLE, "--augmentation.vertical_flip true", "--epochs 100")  # a smear has no up and no down

RUNS = (
    Run("bccd-0", "SSD", "bccd", (*FINETUNE, "--arguments.image_size [288,384]", *CELLS, "--seed 0")),
    Run("chess-0", "SSD", "chess",
        (*FINETUNE, "--arguments.image_size 352", *CHEAP, *GENTLE, "--epochs 60", "--seed 0")),
    Run("retinanet-bccd-0", "RetinaNet", "bccd",
        (*FINETUNE, "--builder retinanet", "--arguments.image_size [288,384]",
         "--arguments.anchor_sizes [24,48,96,192,384]", "--arguments.channels 128", "--arguments.tower_norm group",
         *CELLS, "--seed 0")),
    # Whole multiples of 64 near 288 x 384; one anchor size for each of four levels, the smallest for platelets.
    Run("refinedet-bccd-0", "RefineDet", "bccd",
        (*FINETUNE, "--builder refinedet", "--arguments.image_size [320,448]",
         "--arguments.anchor_sizes [24,48,96,192]", "--arguments.channels 128", *CELLS, "--seed 0")),
)  # fmt: skip


def chosen(names: Collection[str] | None) -> tuple[Run, ...]:
    """The runs of these names in the plan's order; None: all.

    Raises:
        UserError: a name that no run has.
    """
    unknown = sorted(set(names or ()) - {run.name for run in RUNS})
    if unknown:
        raise UserError(f"no run {', '.join(unknown)}: expected some of {', '.join(run.name for run in RUNS)}")
    return tuple(run for run in RUNS if names is None or run.name in names)
