"""RetinaNet on COCO (focal loss paper, sections 4.1 and 5). DATA is the folder with `annotations` and images.

The paper's trainval35k is train2017, its minival is val2017. Where the paper gives no value, it comes from its authors'
Detectron or from most implementations. Comments say where they differ.
"""

from __future__ import annotations

from typing import Any

from singleshot.recipes.benchmarks import COCO_TEST_DEV, COCO_WITH_OBJECTS
from singleshot.training.recipe import (
    Augmentation,
    Data,
    Optimizer,
    Published,
    Recipe,
    Schedule,
    Validation,
)

PAPER = "RetinaNet, arXiv 1708.02002"
_DETECTRON = "Detectron, MODEL_ZOO (1x)"
_MINIVAL = "COCO minival (val2017), AP"

BACKBONES = {"r50": "resnet50", "r101": "resnet101", "x101": "resnext101_32x4d"}  # short names in the recipes' names

# Horizontal flips are the only augmentation (section 4.1).
FLIP = Augmentation(photometric=False, expand=False, crop=False, flip=True)


def pyramid_recipe(
    name: str,
    *,
    builder: str,
    arguments: dict[str, Any],
    batch_size: int,
    data: Data,
    schedule: Schedule,
    expected: tuple[Published, ...],
) -> Recipe:
    """The common settings of RetinaNet and its descendants, as their authors trained them.

    SGD with a rate of 0.01 for batches of 16, in proportion for others. Warm-up over 500 steps from a third of the rate
    (Detectron, mmdetection). The gradient's norm is clipped at 35 (mmdetection). Detectron does not clip, but clipping
    does no harm and keeps small batches from diverging. Biases learn as weights do; only Detectron gives them twice the
    rate and no decay.

    The trunk starts from ImageNet weights, which the user must give (`--backbone-weights`). If one GPU cannot hold a
    batch, use a smaller `batch_size` with several processes or with `optimizer.accumulate`.

    `arguments`: the builder's arguments besides the common ones set here.
    """
    return Recipe(
        name=name,
        expected=expected,
        builder=builder,
        arguments={
            **arguments,
            "frozen_stages": 2,  # stem and stage 1, Detectron's res2
            "p6": "c5",
            "box_loss": "smooth_l1",
            "beta": 0.11,  # Detectron; mmdetection 3, Detectron2 and torchvision have L1 and other figures
            "low_quality": "all",  # mmdetection, Detectron2, torchvision; Detectron's form is "band"
        },
        batch_size=batch_size,
        data=data,
        augmentation=FLIP,
        optimizer=Optimizer(
            name="sgd",
            lr=0.01,
            base_batch_size=16,
            momentum=0.9,
            weight_decay=1e-4,
            bias_lr_factor=1.0,
            bias_decay=True,
            clip_norm=35.0,
        ),
        schedule=schedule,
        validation=Validation(every=1.0, metric="coco.AP"),
    )


def step_schedule(steps: int, *milestones: int) -> Schedule:
    """After the warm-up, the rate drops to a tenth at each milestone."""
    return Schedule(
        steps=steps, kind="step", milestones=milestones, gamma=0.1, warmup_steps=500, warmup_start=round(1 / 3, 6)
    )


# The long side is at most 5/3 of the short one: Detectron has 1333 for 800, mmdetection 1000 for 600. For other sizes
# no limit is published, and the paper gives none at all.
_LONGEST = {400: 667, 500: 833, 600: 1000, 700: 1167, 800: 1333}

_FIGURES = {  # Table 1e
    "r50": {400: 30.5, 500: 32.5, 600: 34.3, 700: 35.1, 800: 35.7},
    "r101": {400: 31.9, 500: 34.4, 600: 36.0, 700: 37.1, 800: 37.8},
}
_MORE = {
    ("r50", 600): Published(_MINIVAL, 34.0, f"{PAPER}, Tables 1b and 1c"),
    ("r101", 600): Published(_MINIVAL, 36.0, f"{PAPER}, Table 1d"),
    ("r50", 800): Published(_MINIVAL, 35.7, _DETECTRON),
    ("r101", 800): Published(_MINIVAL, 37.7, _DETECTRON),
}


def _recipe(name: str, depth: str, size: int, schedule: Schedule, *expected: Published, **more: Any) -> Recipe:
    return pyramid_recipe(
        name,
        builder="retinanet",
        arguments={
            "backbone": BACKBONES[depth],
            "image_size": size,
            "max_size": _LONGEST[size],
            "norm": "frozen",  # Detectron: batch norm is a fixed scale and shift
            # Paper, Detectron, Detectron2. AP is the same without it (mmdetection) and with P6 from P5 (torchvision).
            "relu_before_p7": True,
            **more,
        },
        batch_size=16,
        data=COCO_WITH_OBJECTS,
        schedule=schedule,
        expected=expected,
    )


def _recipes() -> list[Recipe]:
    made = []
    for depth, figures in _FIGURES.items():
        for size, figure in figures.items():
            published = [Published(COCO_TEST_DEV.name, figure, f"{PAPER}, Table 1e")]
            if (depth, size) in _MORE:
                published.append(_MORE[depth, size])
            # 90k iterations, divided by 10 at 60k and 80k (section 4.1).
            schedule = step_schedule(90_000, 60_000, 80_000)
            made.append(_recipe(f"retinanet_{depth}_{size}_coco", depth, size, schedule, *published))
    # "Trained with scale jitter and for 1.5x longer" (Table 2). The range is Detectron2's; the paper gives none.
    made.append(
        _recipe(
            "retinanet_r101_jitter_coco",
            "r101",
            800,
            step_schedule(135_000, 90_000, 120_000),
            Published(COCO_TEST_DEV.name, 39.1, f"{PAPER}, Table 2"),
            jitter=[640, 800],
        )
    )
    return made


RECIPES: tuple[Recipe, ...] = tuple(_recipes())
