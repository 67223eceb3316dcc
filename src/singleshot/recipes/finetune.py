"""Any folder with boxes: some hundred to some thousand images, a small network, two CPU cores and an hour."""

from __future__ import annotations

from dataclasses import replace

from singleshot.training.recipe import Augmentation, Compute, Data, Ema, Optimizer, Recipe, Schedule, Validation

FINETUNE = Recipe(
    name="finetune",
    builder="ssd",
    # Better with --backbone-weights FILE or --from MODEL; from scratch give it many more --epochs.
    arguments={"backbone": "mobilenetv2", "image_size": 320},
    # Voting: 0.3 to 3.9 points of AP on each of four sets that have been tried, without training (docs/results.md).
    # RetinaNet's towers do not get going in a short run without a norm; half the channels save half of their time.
    defaults={"vote": 0.05, "tower_norm": "group", "channels": 128},
    start="file",
    batch_size=16,
    data=Data(),
    # A gentle zoom in and out. Crops cut off what an object is known by: more than some hundred images can make up for.
    augmentation=Augmentation(expand=False, crop=False, jitter=(0.7, 1.4)),
    optimizer=Optimizer(
        name="adamw",
        lr=1e-3,
        base_batch_size=16,
        weight_decay=0.05,
        bias_lr_factor=1.0,
        norm_decay=False,
        clip_norm=10.0,
        # What the weights know stays in reach. Of photographs it is most of what a detector needs; of cells it is not,
        # but there it still learns. A backbone that is drawn anew learns at the full rate (`with_nothing_to_keep`).
        backbone_lr_factor=0.3,
        freeze_norm_steps=-1,
    ),
    # 1,500 steps of 16, and as much with other batches: some hundred images need what some thousand do.
    schedule=Schedule(images=24_000, kind="cosine", warmup_steps=100, warmup_start=0.01, final_factor=0.01),
    ema=Ema(decay=0.998),
    validation=Validation(times=10, metric="coco.AP"),
    compute=Compute(precision="auto", channels_last=True),  # a quarter less time on a CPU
)

# Do data and settings hold together? 20 images are trained on, unchanged, and measured on: their AP50 comes near 1, or
# there is a mistake. Small batches, for many steps; and nothing that holds the network back from what it has seen.
BY_HEART = replace(
    FINETUNE,
    name="by_heart",
    batch_size=4,
    data=Data(overfit=20),
    augmentation=Augmentation(photometric=False, expand=False, crop=False, flip=False),
    optimizer=replace(FINETUNE.optimizer, backbone_lr_factor=1.0, freeze_norm_steps=0),
    schedule=replace(FINETUNE.schedule, images=None, epochs=200),
    ema=Ema(decay=None),
    validation=Validation(times=4, metric="coco.AP50"),
)

RECIPES: tuple[Recipe, ...] = (FINETUNE, BY_HEART)
