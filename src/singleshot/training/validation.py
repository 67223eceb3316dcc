"""Validation during a run: measure the weights that will be saved, and keep them if they are the best."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.metrics import evaluate
from singleshot.training import due, saving, setup
from singleshot.training.interrupt import StopSignals
from singleshot.training.pace import now
from singleshot.training.run import Run
from singleshot.training.state import random_state


def validate(run: Run, asked: StopSignals) -> None:
    """Measure the weights that will be saved, and keep them if they are the best so far."""
    progress, begin = run.progress, now()
    random = run.ranks.gather(random_state(run.ranks.device))
    if run.display.bar is None:
        run.display.say(f"step {progress.step}: validation")
    try:
        with asked.at_once():
            metrics = measure(run)
    except KeyboardInterrupt:
        saving.write(run, random)  # without this validation: it is repeated when the run continues
        saving.interrupted(run)
    except UserError as error:  # an image has gone
        if run.ranks.world == 1:
            saving.write(run, random)
        raise saving.stopped_by(run, error) from error
    value = metric_value(metrics, run.recipe.validation.metric)
    progress.validated, progress.metrics = progress.step, metrics
    progress.stale += 1
    better = progress.best is None or value > progress.best
    if better:
        progress.best, progress.best_step, progress.stale = value, progress.step, 0
    early = due.early_end(run)
    progress.finished = early or due.end(run)
    coco, voc = metrics["coco"], metrics["voc10"]["mAP"]
    numbers = {"AP": coco["AP"], "AP50": coco["AP50"], "voc07": metrics["voc07"]["mAP"], "voc10": voc}
    shown = "  ".join(f"{name} {100 * number:.1f}" for name, number in numbers.items() if number is not None)
    run.display.say(f"step {progress.step}: {shown}{'  (best)' if better else ''}")
    if early:
        run.display.say(f"stopped early: {progress.stale} validations without a better {run.recipe.validation.metric}")
    if run.ranks.first:
        entry = {"kind": "validation", "step": progress.step, "epoch": run.epoch(progress.step), "best": better}
        run.folder.append({**entry, "metrics": metrics, "time": round(time.time(), 1)})
        if better:
            saving.save_weights(run, run.folder.best)
    due.validated(run, now() - begin)
    run.trackers.log({f"val/{name}": number for name, number in numbers.items() if number is not None}, progress.step)


def measure(run: Run) -> dict[str, Any]:
    """Each process detects objects in its share of the images. The first process evaluates all."""
    data, world = run.data.val, run.ranks.world
    assert data is not None
    share = replace(data, records=data.records[run.ranks.rank :: world])
    workers = setup.worker_count(run.recipe.data.workers, world)
    found = detect_dataset(run.result_detector, share, batch_size=run.recipe.validation.batch_size, workers=workers)
    shares = run.ranks.gather(found)
    if not run.ranks.first:
        return run.ranks.broadcast({})
    together = [shares[i % world][i // world] for i in range(len(data))]
    return run.ranks.broadcast(evaluate(data, together).to_json())


def metric_value(metrics: dict[str, Any], name: str) -> float:
    """One number of `evaluate`'s result, by its dotted name. An undefined number counts as 0."""
    group, _, key = name.partition(".")
    value = metrics[group][key]
    return 0.0 if value is None else max(float(value), 0.0)
