"""The common settings of SSD and RefineDet: both were trained with the same Caffe code."""

from __future__ import annotations

from typing import Any

from singleshot.training.recipe import Augmentation, Data, Optimizer, Published, Recipe, Schedule, Validation

SSD_PAPER = "SSD, arXiv 1512.02325"
REFINEDET_PAPER = "RefineDet, arXiv 1711.06897"


def ssd_recipe(
    name: str,
    *,
    size: int,
    boxes: str,
    data: Data,
    schedule: Schedule,
    expand: bool,
    expected: Published,
    metric: str,
) -> Recipe:
    """SSD with VGG-16 as its authors trained it (section 3, and their scripts)."""
    return caffe_recipe(
        name,
        builder="ssd",
        arguments={"backbone": "vgg16", "image_size": size, "box_sizes": boxes},
        data=data,
        schedule=schedule,
        expected=(expected,),
        metric=metric,
        expand=expand,
    )


def caffe_recipe(
    name: str,
    *,
    builder: str,
    arguments: dict[str, Any],
    data: Data,
    schedule: Schedule,
    expected: tuple[Published, ...],
    metric: str,
    expand: bool = True,
    batch_size: int = 32,
    lr: float = 1e-3,
) -> Recipe:
    """SGD in batches of 32 at 1e-3, no warm-up, no clipping, no average.

    The trunk starts from ImageNet weights, which the user must give (`--backbone-weights`). If the name has
    `_from_coco`, the whole detector starts from one that was trained on COCO (`--from`). If validation uses the paper's
    test set, it is only for monitoring: the published figure is that of the last weights.
    """
    return Recipe(
        name=name,
        expected=expected,
        builder=builder,
        arguments=arguments,
        start="needed" if "_from_coco" in name else "own",
        batch_size=batch_size,
        data=data,
        augmentation=Augmentation(expand=expand),
        optimizer=Optimizer(
            name="sgd",
            lr=lr,
            base_batch_size=batch_size,
            momentum=0.9,
            weight_decay=5e-4,
            bias_lr_factor=2.0,  # authors' python/caffe/model_libs.py
            bias_decay=False,
        ),
        schedule=schedule,
        validation=Validation(every=10.0, metric=metric),
    )


def steps(*pieces: int) -> Schedule:
    """Thousands of steps at each rate; each rate is a tenth of the previous one: `steps(80, 20, 20)`."""
    ends = [1000 * sum(pieces[: i + 1]) for i in range(len(pieces))]
    return Schedule(steps=ends[-1], kind="step", milestones=tuple(ends[:-1]), gamma=0.1)
