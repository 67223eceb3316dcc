"""The allowed values of a recipe's fields, beyond their types."""

from __future__ import annotations

from singleshot.data.formats import FORMATS
from singleshot.errors import UserError
from singleshot.training.recipe import Recipe

METRICS = (
    *(
        f"coco.{name}"
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    ),
    "voc07.mAP",
    "voc10.mAP",
)
"""The metrics that may decide which weights are best: numbers of `singleshot evaluate`, by group and name."""


def check_values(recipe: Recipe) -> None:
    """Refuse values that no run can have, before anything is opened.

    Raises:
        UserError: a value is out of range. The message names the field, its value and the allowed values.
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
