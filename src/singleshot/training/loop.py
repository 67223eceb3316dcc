"""Training: `train` sets a run up, `loop` is the loop itself."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from singleshot.errors import UserError
from singleshot.plain_data import to_plain
from singleshot.training import setup, start, tracking
from singleshot.training.folder import RunFolder
from singleshot.training.gradients import backward
from singleshot.training.interrupt import StopSignals, stop_signals
from singleshot.training.memory import keep_freed_memory
from singleshot.training.optimizer import set_rate
from singleshot.training.parallel import start_ranks
from singleshot.training.recipe import Recipe, check_values, from_yaml, override, to_yaml
from singleshot.training.resume import check_changes, resolved_as
from singleshot.training.run import Run
from singleshot.training.state import SavedState
from singleshot.training.step_report import PendingReport


@dataclass(frozen=True)
class TrainResult:
    """What a run has left."""

    run: Path  # the run folder
    best: Path  # weights with the best validation metric; without validation, the last ones
    last: Path
    metrics: dict[str, Any]  # of the last validation, as `singleshot evaluate --json` prints them; empty without


def train(
    recipe: Recipe | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    from_checkpoint: str | Path | None = None,
    skip_bad: bool = False,
    device: str | None = None,
) -> TrainResult:
    """Train a detector as a recipe says, in a new run folder, or go on with an old one.

    Several processes, started by `torchrun`, train together: each takes `recipe.batch_size` images.

    Args:
        recipe: what to do. With `resume` it may be left out; it may then change the length, paths and what is logged.
        data: folder or annotation file (in place of `recipe.data.path`).
        out: the run folder, which must not exist; default `runs/<recipe>-<n>`.
        resume: the folder of a run to go on with, exactly from its last saved state.
        from_checkpoint: weights of a trained detector to start from (in place of `recipe.start_from`).
        skip_bad: leave out images that the check of the data calls errors (in place of `recipe.data.skip_bad`).
        device: "cpu", "cuda", ... (in place of `recipe.compute.device`).

    Raises:
        UserError: bad data, recipe or folder, full disk; `DivergedError`, one of them, when a loss is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    saved = source = None
    notes: list[str] = []
    if resume is not None:
        folder = RunFolder.existing(resume)
        if out is not None and Path(out).resolve() != folder.path.resolve():
            raise UserError(f"--resume {resume} goes on in that folder; leave --out away")
        before = from_yaml(folder.recipe)
        saved = SavedState.read(folder.state)
        recipe = recipe or before
    recipe = recipe or Recipe()
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, path=str(data)))
    if skip_bad:
        recipe = replace(recipe, data=replace(recipe.data, skip_bad=True))
    if from_checkpoint is not None:
        recipe = replace(recipe, start_from=str(from_checkpoint))
    if device is not None:
        recipe = replace(recipe, compute=replace(recipe.compute, device=device))
    check_values(recipe)
    tracking.require(recipe.log.trackers)
    if saved is None and out is not None:
        RunFolder.must_be_new(out)  # before anybody waits for the check of the data

    with start_ranks(recipe.compute.device) as ranks:
        keep_freed_memory(ranks.device)
        if saved is None:
            recipe, source = start.resolve_start(setup.absolute_paths(recipe))
        else:
            recipe, notes = resolved_as(before, setup.absolute_paths(recipe))
        precision = setup.choose_precision(recipe.compute.precision, ranks.device)
        recipe = override(recipe, {"compute.precision": precision})
        if saved is not None:
            notes += check_changes(before, recipe, folder)
        known = saved.progress.classes if saved is not None else source.class_names if source is not None else ()
        with ranks.in_turn():  # the first process fills the cache of the check
            found = setup.open_data(recipe, tuple(known))
        torch.manual_seed(recipe.seed)
        built = start.build_detector(recipe, found.train, source)
        if saved is None and built.fresh:
            recipe = replace(recipe, optimizer=start.with_nothing_to_keep(recipe).optimizer)
        run = Run(recipe, ranks, found, built.detector)
        if saved is None:
            # The folder appears when everything else has gone well.
            folder = RunFolder(ranks.broadcast(RunFolder.create(out, recipe.name).path if ranks.first else Path()))
            notes.append(built.said)
        run.folder = folder
        with folder.alone() if ranks.first else nullcontext():
            if ranks.first and (saved is None or notes):
                folder.write(folder.recipe, to_yaml(recipe).encode())
            if saved is not None:
                run.restore(saved, before)
            with run.display:
                return _train(run, notes + found.warnings)


def _train(run: Run, notes: list[str]) -> TrainResult:
    """From the current step to the end."""
    recipe, folder = run.recipe, run.folder
    result = TrainResult(folder.path, folder.best, folder.last, {})
    if run.progress.finished:
        steps = run.progress.step
        run.display.say(
            f"{folder.path}: this run is finished ({steps} steps), nothing to do; a larger --epochs goes on"
        )
        return replace(result, metrics=run.progress.metrics)
    run.announce(notes)
    trackers = tracking.Trackers(recipe.log.trackers if run.ranks.first else (), folder.path, to_plain(recipe))
    try:
        with stop_signals() as asked:
            loop(run, asked, trackers)
    finally:
        trackers.finish()
    return replace(result, metrics=run.progress.metrics)


def loop(run: Run, asked: StopSignals, trackers: tracking.Trackers) -> None:
    """The loop: rate, losses, gradients, step, average; then the losses of the step before, validation, saving."""
    recipe, progress, optimizer = run.recipe, run.progress, run.optimizer
    batches = run.batches()
    pending: PendingReport | None = None
    run.display.begin(progress.step)
    if run.validation_due():  # the run was stopped during a validation
        run.validate(asked, trackers)
        run.save()

    while not progress.finished:
        run.set_mode()
        set_rate(optimizer, run.rate_at(progress.step))
        optimizer.zero_grad(set_to_none=True)
        try:
            taken = [next(batches) for _ in range(run.accumulate)]
        except RuntimeError:  # a signal to the whole process group ends the workers too
            if asked.stop and run.ranks.world == 1:
                if pending is not None:
                    run.record(pending, trackers)
                run.save()
                run.interrupted()
            raise
        losses = backward(run.model, run.detector, taken)
        if recipe.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(run.detector.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()
        if run.average is not None:
            run.average.update(run.detector, progress.step)
        progress.step += 1

        # The losses of the step before are there by now: reading them does not make the device wait.
        stop, save = asked.stop and run.ranks.world == 1, run.save_due()
        if pending is not None:
            report = run.record(pending, trackers)
            stop, save = stop or report.stop, save or report.save
        pending = PendingReport(progress.step, losses, taken, run.ranks, stop=asked.stop, save=run.minutes_passed())
        if stop or save or run.validation_due():
            run.record(pending, trackers)  # also: no state is saved whose losses were not seen to be finite
            pending = None
            if run.validation_due() and not stop:
                run.validate(asked, trackers)
            progress.finished = progress.finished or (progress.step == run.total and not run.validation_due())
            run.save()
        if stop and not progress.finished:
            run.interrupted()
