"""RetinaNet on COCO (focal loss paper, sections 4.1 and 5). DATA is the folder with `annotations` and images.

The paper's trainval35k is train2017, its minival is val2017. What the paper leaves open is as in its authors'
Detectron or as most implementations have it; comments name what differs.
"""

from __future__ import annotations

from typing import Any

from singleshot.recipes.benchmarks import COCO_TEST_DEV, COCO_WITH_OBJECTS
from singleshot.training.recipe import (
    Augmentation,
    Compute,
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

BACKBONES = {"r50": "resnet50", "r101": "resnet101", "x101": "resnext101_32x4d"}  # as the names of recipes have them

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
    """What RetinaNet and its descendants have in common, as their authors trained them; `arguments` are the others.

    SGD with 0.01 for batches of 16 and in proportion for others; a warm-up of 500 steps from a third (Detectron,
    mmdetection); the gradient's norm cut to 35 (mmdetection; Detectron does not, but it does no harm, and spares small
    batches a divergence). Biases learn as weights do: Detectron alone has twice the rate and no decay for them.

    The trunk begins from ImageNet weights, which the user has to give (`--backbone-weights`). What one GPU cannot hold
    is split by processes, or by `optimizer.accumulate`, with a smaller `batch_size`.
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
        compute=Compute(channels_last=True),
    )


def step_schedule(steps: int, *milestones: int) -> Schedule:
    """A tenth of the rate from each milestone on, after the warm-up."""
    return Schedule(
        steps=steps, kind="step", milestones=milestones, gamma=0.1, warmup_steps=500, warmup_start=round(1 / 3, 6)
    )


# Long sides at most 5/3 of the short one: Detectron's 1333 for 800 and mmdetection's 1000 for 600. For other sizes, and
# by the paper itself, none is published.
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
            # Paper, Detectron, Detectron2. Without it (mmdetection), and with P6 from P5 (torchvision), AP is equal.
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
    # "Trained with scale jitter and for 1.5x longer" (Table 2). The range is Detectron2's, the paper gives none.
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
