"""For any folder with boxes: hundreds to thousands of images, a small network, two CPU cores and an hour."""

from __future__ import annotations

from dataclasses import replace

from singleshot.training.recipe import Augmentation, Compute, Data, Ema, Optimizer, Recipe, Schedule, Validation

FINETUNE = Recipe(
    name="finetune",
    builder="ssd",
    # Results are better with --backbone-weights FILE or --from MODEL. From scratch, use many more --epochs.
    arguments={"backbone": "mobilenetv2", "image_size": 320},
    # Voting gave 0.3 to 3.9 points of AP on each of four sets, without training (docs/results.md).
    # Without a norm, RetinaNet's towers hardly learn in a short run. Half the channels take half the time.
    defaults={"vote": 0.05, "tower_norm": "group", "channels": 128},
    start="file",
    batch_size=16,
    data=Data(),
    # A gentle zoom in and out. Crops cut off parts by which an object is recognised; hundreds of images are too few to
    # make up for that.
    augmentation=Augmentation(expand=False, crop=False, jitter=(0.7, 1.4)),
    optimizer=Optimizer(
        name="adamw",
        lr=1e-3,
        base_batch_size=16,
        weight_decay=0.05,
        bias_lr_factor=1.0,
        norm_decay=False,
        clip_norm=10.0,
        # A low rate keeps what the pretrained weights know. For photographs this is most of what a detector needs. For
        # cells it is not, but the backbone still learns there. A backbone with random weights learns at the full rate
        # (`with_nothing_to_keep`).
        backbone_lr_factor=0.3,
        freeze_norm_steps=-1,
    ),
    # 1,500 steps of 16 images, and as many images with other batch sizes. Hundreds of images need as long a run as
    # thousands do.
    schedule=Schedule(images=24_000, kind="cosine", warmup_steps=100, warmup_start=0.01, final_factor=0.01),
    ema=Ema(decay=0.998),
    validation=Validation(times=10, metric="coco.AP"),
    compute=Compute(precision="auto", channels_last=True),  # a quarter less time on a CPU
)

# A check of data and settings: train and validate on the same 20 images, unchanged. Their AP50 must come near 1, else
# there is a mistake. Small batches give many steps, and nothing keeps the network from fitting these images.
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
