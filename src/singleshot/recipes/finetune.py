"""Any folder with boxes: some hundred to some thousand images, a small network, two CPU cores and an hour."""

from __future__ import annotations

from singleshot.training.recipe import Compute, Data, Ema, Optimizer, Recipe, Schedule, Validation

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="finetune",
        builder="ssd",
        # Better with --backbone-weights FILE or --from MODEL; from scratch give it many more --epochs.
        arguments={"backbone": "mobilenetv2", "image_size": 320},
        start="file",
        batch_size=16,
        data=Data(),
        optimizer=Optimizer(
            name="adamw",
            lr=1e-3,
            base_batch_size=16,
            weight_decay=0.05,
            bias_lr_factor=1.0,
            norm_decay=False,
            clip_norm=10.0,
            freeze_norm_steps=100,  # the statistics that came with the weights beat those of the first batches
        ),
        schedule=Schedule(epochs=60, kind="cosine", warmup_steps=100, warmup_start=0.01, final_factor=0.01),
        ema=Ema(decay=0.998),
        validation=Validation(every=5.0, metric="coco.AP"),
        compute=Compute(precision="auto", channels_last=True),  # a quarter less time on a CPU
    ),
)
