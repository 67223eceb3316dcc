"""What a run reports: on the screen, in its log, to trackers."""

from __future__ import annotations

import time
from typing import Any

import torch

from singleshot.training import due
from singleshot.training.progress import minutes
from singleshot.training.run import Run
from singleshot.training.step_report import PendingReport, StepReport

_FEW_TIMES = 8  # if each image is shown fewer times, a longer run helps: `finetune` shows 3,000 images 8 times
_FEW_CLASSES = 20  # up to this number of classes, their names are printed when a run begins


def announce(run: Run, notes: list[str]) -> None:
    """Print and log what this run does, and what the user should know about it."""
    recipe, ranks = run.recipe, run.ranks
    size = "x".join(map(str, run.detector.image_size))
    length, epochs = f"{run.total} steps", f", {run.total / run.steps_per_epoch:.1f} epochs"
    if run.clock is not None:
        length, epochs = f"{minutes(run.clock.limit)} by the clock, in steps", ""
    val = f"{len(run.data.val)} to validate on" if run.data.val is not None else "no validation"
    base = recipe.optimizer.base_batch_size
    rate = f"{recipe.optimizer.lr:g} x {run.images_per_step}/{base} images" if base else "not scaled"
    lines = [
        f"run folder: {run.folder.path}",
        *notes,
        f"{recipe.builder} at {size}, {_classes(run)}; {len(run.data.train)} images to train on, {val}",
        f"{length} of {run.images_per_step} images ({recipe.batch_size} x {ranks.world} processes x "
        f"{run.accumulate} batches){epochs}; learning rate {run.rate:g} ({rate})",
        f"{ranks.device}, {recipe.compute.precision}{', compiled' if recipe.compute.compile else ''}, "
        f"torch {torch.__version__}",
    ]
    if run.images_per_step > len(run.data.train):
        lines.append(
            f"note: a step takes {run.images_per_step} images, more than the data has ({len(run.data.train)}): "
            "a smaller --batch-size gives more steps in an epoch"
        )
    seen = (recipe.schedule.images or 0) / len(run.data.train)
    if recipe.schedule.unit == "images" and seen < _FEW_TIMES:
        lines.append(
            f"note: the run shows each image {seen:.1f} times only: its length is meant for smaller sets. With "
            f"{len(run.data.train):,} images, more --epochs give a better detector"
        )
    if run.clock is None and recipe.schedule.warmup_steps >= run.total:
        lines.append(
            f"note: the run ends before the warm-up of the learning rate does ({recipe.schedule.warmup_steps} steps): "
            "give it more --epochs, or a smaller --schedule.warmup_steps"
        )
    if run.progress.step:
        used = "" if run.clock is None else f", with {minutes(run.clock.left)} left"
        lines.append(f"continuing after step {run.progress.step}{used}")
    for line in lines:
        run.display.say(line)
    if run.ranks.first:
        entry = {
            "kind": "start",
            "step": run.progress.step,
            "total": run.total,
            "rate": run.rate,
            "notes": lines,
        }
        run.folder.append(entry)


def record(run: Run, pending: PendingReport) -> StepReport:
    """Read the losses of a step, check and show them, and log their mean every `log.every` steps."""
    report, progress = pending.read(run.folder), run.progress
    for name, value in report.losses.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    progress.summed += 1
    if run.clock is not None:
        run.clock.follow(report.verdict)
    rate, speed, left = pending.rate, run.speed, run.time_left(report.step)
    run.display.step(report.step, report.losses, rate=rate, speed=speed, share=run.share, left=left)
    last = report.step == progress.step and due.end(run)
    if report.step % run.recipe.log.every == 0 or last:
        losses = {name: value / progress.summed for name, value in progress.sums.items()}
        progress.sums, progress.summed = {}, 0
        entry: dict[str, Any] = {
            "kind": "step",
            "step": report.step,
            "epoch": run.epoch(report.step),
            "rate": rate,
            "loss": sum(losses.values()),
            "losses": losses,
            "images_per_second": round(speed, 2),
            "time": round(time.time(), 1),
        }
        if run.ranks.first:
            run.folder.append(entry)
        values = {f"loss/{name}": value for name, value in losses.items()}
        run.trackers.log({**values, "loss/total": entry["loss"], "rate": rate, "images_per_second": speed}, report.step)
    return report


def _classes(run: Run) -> str:
    """The number of classes, and their names if there are few."""
    names = run.detector.class_names
    number = f"{len(names)} class{'es' * (len(names) != 1)}"
    return f"{number} ({', '.join(names)})" if len(names) <= _FEW_CLASSES else number
