"""The learning rate as a function of the step. So there is nothing to save or to restore."""

from __future__ import annotations

import math

from singleshot.errors import UserError
from singleshot.training.recipe import Optimizer, Schedule


def scaled_rate(optimizer: Optimizer, images_per_step: int) -> float:
    """The base rate, in proportion to the images of one step (linear scaling, Goyal et al., 2017)."""
    return optimizer.lr * (images_per_step / optimizer.base_batch_size if optimizer.base_batch_size else 1.0)


def total_steps(schedule: Schedule, steps_per_epoch: int, images_per_step: int) -> int:
    """Optimiser steps of the whole run."""
    if schedule.epochs is not None:
        total = round(schedule.epochs * steps_per_epoch)
    elif schedule.images is not None:
        total = math.ceil(schedule.images / images_per_step)
    elif schedule.steps is not None:
        total = schedule.steps
    else:
        raise UserError("schedule: say how long to train, with schedule.epochs, schedule.images or schedule.steps")
    if total < 1:
        raise UserError(
            f"schedule: a run needs at least one step, got {total}; raise schedule.epochs, .images or .steps"
        )
    return total


def milestones(schedule: Schedule, total: int) -> tuple[int, ...]:
    """The steps at which the rate drops. They stretch with the run if another unit replaces the recipe's steps."""
    if not schedule.steps or schedule.unit == "steps":
        return schedule.milestones
    return tuple(round(step * total / schedule.steps) for step in schedule.milestones)


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
    """The multiple of the base rate at a step (the first is 0) of a run of `total` steps.

    Warm-up: linear from `warmup_start` to 1 over `warmup_steps`. Then, by `kind`: "step" is `gamma` to the power of the
    milestones reached. "cosine" goes from 1 to `final_factor` along half a cosine, from the end of the warm-up to the
    end of the run. "constant" is 1.
    """
    if schedule.kind == "step":
        factor = schedule.gamma ** sum(step >= milestone for milestone in milestones(schedule, total))
    elif schedule.kind == "cosine":
        begin = min(schedule.warmup_steps, total)
        progress = min(max(step - begin, 0) / max(total - begin, 1), 1.0)
        factor = schedule.final_factor + (1 - schedule.final_factor) * (1 + math.cos(math.pi * progress)) / 2
    else:
        factor = 1.0
    if step < schedule.warmup_steps:
        factor *= schedule.warmup_start + (1 - schedule.warmup_start) * step / schedule.warmup_steps
    return factor
