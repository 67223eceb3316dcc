"""The planned runs: data, settings and seeds, fixed before the first run, and the aim for each dataset."""

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
    arguments: tuple[str, ...]  # of the command, without DATA and --out; none contains a space

    def command(self, folder: str) -> str:
        """The command; $DATA is the folder that holds the datasets."""
        return f"singleshot train $DATA/{self.dataset} {' '.join(self.arguments)} --out {folder}"

    @property
    def by_heart(self) -> int | None:
        """The number of images, if the run is trained and measured on the same few."""
        words = " ".join(self.arguments).split()
        return int(words[words.index("--data.overfit") + 1]) if "--data.overfit" in words else None

    @property
    def measured_on(self) -> str:
        """The name of the images that the figures are measured on."""
        return self.dataset if self.by_heart is None else f"{self.dataset}-{self.by_heart}"


@dataclass(frozen=True)
class Aim:
    """A figure that the runs on a dataset (`Run.measured_on`) should reach with their last weights."""

    metric: str  # dotted path in the JSON of `singleshot evaluate`
    figure: float
    detector: str | None = None  # None: every detector

    @property
    def name(self) -> str:
        """The name that a reader knows."""
        group, metric = self.metric.split(".")
        return {"coco": metric, "voc07": "VOC07 mAP", "voc10": "VOC10 mAP"}[group]


AIMS: dict[str, tuple[Aim, ...]] = {
    "bccd": (Aim("coco.AP", 0.58), Aim("coco.AP50", 0.91)),
    "chess": (Aim("coco.AP50", 0.985),),
    "neu_det": (
        Aim("voc10.mAP", 0.75, "SSD"),
        Aim("voc10.mAP", 0.74, "RetinaNet"),
        Aim("voc10.mAP", 0.77, "RefineDet"),
        Aim("voc10.mAP", 0.80, "mixture"),
    ),
    "voc07": (Aim("voc07.mAP", 0.50),),
    "voc07-20": (Aim("voc10.mAP", 0.95),),
}

# The runs with "finetune" were made with the recipe as it was at their commit. It was changed later, because of these
# runs and of the paired experiments on small datasets, which start from the old recipe (pairs/base.yaml). A run that is
# made after the change and is compared with the old ones has the old values (BEFORE).
FINETUNE = ("--format voc", "--recipe finetune", MOBILENET)
BEFORE = ("--optimizer.backbone_lr_factor 1", "--optimizer.freeze_norm_steps 100")
NO_VOTE = "--arguments.vote null"  # for runs that are compared with runs from before there was voting
# Both datasets were taken with one camera at one distance. Chosen on a part of bccd's training images (160 to train on,
# 45 to choose by, 16 epochs): AP 0.529 against 0.496 with the authors' scales of crop and expansion.
GENTLE = ("--augmentation.crop_scale 0.5", "--augmentation.expand_maximum 2")
WHOLE = ("--augmentation.crop false", "--augmentation.expand false")  # nothing is cut off or added
PLAIN = (*WHOLE, "--augmentation.photometric false")  # at most mirrored
CHEAP = ("--arguments.frozen_stages 2", "--compute.channels_last true")
EIGHT = (*CHEAP, "--batch-size 8")
CELLS = (*CHEAP, *GENTLE, "--augmentation.vertical_flip true", "--epochs 100")  # a blood smear has no up and down

# Steel surfaces, 200 x 200. Chosen on a part of the training images (1,200 to train on, 240 to choose by; SSD at 256
# pixels, 5 of 8 epochs): VOC10 mAP 0.53 with a gentle zoom of the image (0.7 to 1.4), 0.45 with gentle crops and
# expansion; 0.50 at 224 pixels with the first two stages fixed, in half the time. Boxes of 5:1 are for scratches.
ZOOM = (*WHOLE, "--augmentation.jitter [0.7,1.4]")
TURNS = "--augmentation.vertical_flip true"
SHAPES = "--arguments.aspect_ratios [1.0,0.5,2.0,0.2,5.0]"

# From scratch. Chosen on the same part of the training images (SSD, 8 epochs): VOC10 mAP 0.432 with ResNet-18, 0.222
# with MobileNetV2. Larger ones would take too long here: VGG-16 five times as long as ResNet-18.
SCRATCH = ("--format voc", "--recipe finetune", "--arguments.backbone resnet18", "--compute.channels_last true",
           "--batch-size 8", *ZOOM, TURNS, "--epochs 40", "--seed 0")  # fmt: skip

# Photographs of everyday things, like ImageNet's. Chosen on a part of the training images (2,888 to train on, 577 to
# choose by; SSD, 8 epochs): what the backbone knows is worth keeping. VOC07 mAP after 4 epochs is 0.42 if the backbone
# learns at a tenth of the rate and its batch norm keeps its statistics, and 0.26 if it learns at the full rate.
PHOTOGRAPHS = (*EIGHT, "--optimizer.backbone_lr_factor 0.1", "--optimizer.freeze_norm_steps -1",
               *WHOLE, "--augmentation.jitter [0.5,1.5]", "--epochs 16",
               "--validation.every 4", "--seed 0")  # fmt: skip

# The published networks, from scratch, trained on the same 20 photographs again and again, to check that they learn.
BY_HEART = ("--format voc", "--recipe finetune", "--data.overfit 20", "--batch-size 4", "--epochs 200",
            *PLAIN, "--augmentation.flip false", "--optimizer.freeze_norm_steps 0", "--ema.decay null",
            "--validation.every 50", "--seed 0")  # fmt: skip

RUNS = (
    Run("bccd-0", "SSD", "bccd", (*FINETUNE, "--arguments.image_size [288,384]", *CELLS, "--seed 0")),
    Run("chess-0", "SSD", "chess",
        (*FINETUNE, "--arguments.image_size 352", *CHEAP, *GENTLE, "--epochs 60", "--seed 0")),
    # The recipe as it is now, with changes only to save time, on a dataset that was not used to choose it.
    Run("chess_untouched-0", "SSD", "chess", (*FINETUNE, *CHEAP, "--seed 0")),
    Run("retinanet-bccd-0", "RetinaNet", "bccd",
        (*FINETUNE, "--builder retinanet", "--arguments.image_size [288,384]",
         "--arguments.anchor_sizes [24,48,96,192,384]", "--arguments.channels 128", "--arguments.tower_norm group",
         *CELLS, "--seed 0")),
    # Multiples of 64 near 288 x 384; one anchor size for each of four levels, the smallest for platelets.
    Run("refinedet-bccd-0", "RefineDet", "bccd",
        (*FINETUNE, "--builder refinedet", "--arguments.image_size [320,448]",
         "--arguments.anchor_sizes [24,48,96,192]", "--arguments.channels 128", *CELLS, "--seed 0")),
    Run("neu_det-0", "SSD", "neu_det",
        (*FINETUNE, "--arguments.image_size 224", "--arguments.aspect_ratios [2,3,5]", *EIGHT, *ZOOM, TURNS,
         "--epochs 60", "--seed 0")),
    Run("refinedet-neu_det-0", "RefineDet", "neu_det",
        (*FINETUNE, "--builder refinedet", "--arguments.image_size 192",
         "--arguments.anchor_sizes [24,48,96,160]", SHAPES, "--arguments.channels 128", *EIGHT, *ZOOM, TURNS,
         "--epochs 40", "--seed 0")),
    Run("retinanet-neu_det-0", "RetinaNet", "neu_det",
        (*FINETUNE, "--builder retinanet", "--arguments.image_size [192,192]", SHAPES,
         "--arguments.anchor_sizes [16,32,64,96,128]", "--arguments.channels 128", "--arguments.tower_norm group",
         *EIGHT, *ZOOM, TURNS, "--epochs 40", "--seed 0")),
    Run("neu_det_scratch-0", "SSD", "neu_det",
        ("--arguments.image_size 224", "--arguments.aspect_ratios [2,3,5]", *SCRATCH)),
    Run("refinedet-neu_det_scratch-0", "RefineDet", "neu_det",
        ("--builder refinedet", "--arguments.image_size 192", "--arguments.anchor_sizes [24,48,96,160]", SHAPES,
         "--arguments.channels 128", *SCRATCH)),
    Run("retinanet-neu_det_scratch-0", "RetinaNet", "neu_det",
        ("--builder retinanet", "--arguments.image_size [192,192]", SHAPES,
         "--arguments.anchor_sizes [16,32,64,96,128]", "--arguments.channels 128", "--arguments.tower_norm group",
         NO_VOTE, *SCRATCH)),
    # The gain from augmentation (published for SSD300: 64.0 with all of it, 37.8 with mirroring alone).
    Run("neu_det_flip-0", "SSD", "neu_det",
        (*FINETUNE, "--arguments.image_size 224", "--arguments.aspect_ratios [2,3,5]", *EIGHT, *PLAIN,
         "--augmentation.jitter []", *BEFORE, "--epochs 60", "--seed 0")),
    # RefineDet with what was learnt from pilots and small datasets: the present `finetune`, more pixels, box voting.
    Run("mixture-neu_det-0", "mixture", "neu_det",
        (*FINETUNE, "--builder refinedet", "--arguments.image_size 256",
         "--arguments.anchor_sizes [32,64,128,213]", SHAPES, "--arguments.channels 128", "--arguments.vote 0.05",
         "--arguments.frozen_stages 2", "--batch-size 8", TURNS, "--epochs 45", "--seed 0")),
    Run("voc07-0", "SSD", "voc07", (*FINETUNE, "--arguments.image_size 256", *PHOTOGRAPHS)),
    Run("refinedet-voc07-0", "RefineDet", "voc07",
        (*FINETUNE, "--builder refinedet", "--arguments.image_size 256",
         "--arguments.anchor_sizes [26,51,102,205]", "--arguments.channels 128", *PHOTOGRAPHS)),
    Run("retinanet-voc07-0", "RetinaNet", "voc07",
        (*FINETUNE, "--builder retinanet", "--arguments.image_size [256,256]",
         "--arguments.anchor_sizes [16,32,64,110,180]", "--arguments.channels 128", "--arguments.tower_norm group",
         *PHOTOGRAPHS)),
    Run("ssd300-by-heart", "SSD", "voc07",
        (*BY_HEART, "--arguments.backbone vgg16", "--arguments.image_size 300")),
    Run("refinedet320-by-heart", "RefineDet", "voc07",
        (*BY_HEART, "--augmentation.jitter []", "--builder refinedet", "--arguments.backbone vgg16",
         "--arguments.image_size 320")),
    Run("retinanet_r50-by-heart", "RetinaNet", "voc07",
        (*BY_HEART, "--augmentation.jitter []", "--builder retinanet", "--arguments.backbone resnet50",
         "--arguments.image_size [320,320]")),
)  # fmt: skip


def chosen(names: Collection[str] | None) -> tuple[Run, ...]:
    """The runs with these names, in the plan's order; None: all.

    Raises:
        UserError: there is no run of a given name.
    """
    unknown = sorted(set(names or ()) - {run.name for run in RUNS})
    if unknown:
        raise UserError(f"there is no run {', '.join(unknown)}; choose from {', '.join(run.name for run in RUNS)}")
    return tuple(run for run in RUNS if names is None or run.name in names)
