"""The learning rate as a function of the step, or of the share of the time: there is nothing to save or to restore."""

from __future__ import annotations

import math

from singleshot.errors import UserError
from singleshot.training.recipe import Optimizer, Schedule


def scaled_rate(optimizer: Optimizer, images_per_step: int) -> float:
    """The base rate, in proportion to the images of one step (linear scaling, Goyal et al., 2017)."""
    return optimizer.lr * (images_per_step / optimizer.base_batch_size if optimizer.base_batch_size else 1.0)


WARMUP_SHARE = 0.1
"""By the clock, the warm-up ends after this share of the time, if its steps are not done by then."""


def check_length(schedule: Schedule) -> None:
    """Refuse a length in minutes beside another one.

    Raises:
        UserError: what else is given, and what to leave out.
    """
    if schedule.minutes is None:
        return
    given = [f"schedule.{unit} ({getattr(schedule, unit)})" for unit in ("epochs", "images") if getattr(schedule, unit)]
    if schedule.steps is not None and not schedule.milestones:
        given.append(f"schedule.steps ({schedule.steps})")
    if given:
        raise UserError(
            f"schedule.minutes ({schedule.minutes:g}) is the length of the run, and so is {', '.join(given)}: "
            "leave one of them out"
        )
    if schedule.milestones and (schedule.steps is None or max(schedule.milestones) > schedule.steps):
        raise UserError(
            f"schedule.milestones are {list(schedule.milestones)}, but with schedule.minutes the number of steps is "
            "not known: give the milestones as parts of schedule.steps, such as [60, 90] of 100"
        )


def total_steps(schedule: Schedule, steps_per_epoch: int, images_per_step: int) -> int:
    """Optimiser steps of the whole run; 0: they are not known, since the run is bounded in time."""
    if schedule.minutes is not None:
        return 0
    if schedule.epochs is not None:
        total = round(schedule.epochs * steps_per_epoch)
    elif schedule.images is not None:
        total = math.ceil(schedule.images / images_per_step)
    elif schedule.steps is not None:
        total = schedule.steps
    else:
        raise UserError(
            "schedule: say how long to train, with schedule.minutes, schedule.epochs, schedule.images or schedule.steps"
        )
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
        factor = _cosine(schedule, min(max(step - begin, 0) / max(total - begin, 1), 1.0))
    else:
        factor = 1.0
    if step < schedule.warmup_steps:
        factor *= schedule.warmup_start + (1 - schedule.warmup_start) * step / schedule.warmup_steps
    return factor


def rate_factor_by_time(schedule: Schedule, step: int, share: float) -> float:
    """The multiple of the base rate at a step of a run that is bounded in time, at this share of the time.

    As `rate_factor`, with the share in place of the step: "step" drops where the milestones are in `steps`, "cosine"
    goes over the whole time. The warm-up goes by its steps or by `WARMUP_SHARE`, whichever is further: a machine on
    which few steps fit into the time is not in its warm-up for most of it.
    """
    if schedule.kind == "step":
        reached = sum(share * (schedule.steps or 1) >= milestone for milestone in schedule.milestones)
        factor = schedule.gamma**reached
    elif schedule.kind == "cosine":
        factor = _cosine(schedule, share)
    else:
        factor = 1.0
    warm = max(step / schedule.warmup_steps, share / WARMUP_SHARE) if schedule.warmup_steps else 1.0
    if warm < 1:
        factor *= schedule.warmup_start + (1 - schedule.warmup_start) * warm
    return factor


def _cosine(schedule: Schedule, progress: float) -> float:
    return schedule.final_factor + (1 - schedule.final_factor) * (1 + math.cos(math.pi * progress)) / 2
