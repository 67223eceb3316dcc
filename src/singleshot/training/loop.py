"""Training: `train` sets up a run, `loop` is the loop itself."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from singleshot.data.loader import TrainBatch, WorkerLostError
from singleshot.errors import UserError
from singleshot.memory import keep_freed_memory
from singleshot.plain_data import to_plain
from singleshot.training import due, log, saving, setup, start, tracking, validation
from singleshot.training.folder import RunFolder
from singleshot.training.gradients import backward
from singleshot.training.interrupt import StopSignals, stop_signals
from singleshot.training.optimizer import set_rate
from singleshot.training.pace import now
from singleshot.training.parallel import start_ranks
from singleshot.training.recipe import Recipe, to_yaml
from singleshot.training.resolve import Resolved, resolve
from singleshot.training.run import Run
from singleshot.training.step_report import PendingReport


@dataclass(frozen=True)
class TrainResult:
    """The results of a run."""

    run: Path  # the run folder
    best: Path  # weights with the best validation metric; without validation, the last ones
    last: Path
    metrics: dict[str, Any]  # of the last validation, as `singleshot evaluate --json` prints them; {} without one


def train(
    recipe: Recipe | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    from_checkpoint: str | Path | None = None,
    skip_bad: bool = False,
    device: str | None = None,
    builder: str | None = None,
) -> TrainResult:
    """Train a detector as a recipe says, in a new run folder, or continue a run.

    Several processes, started by `torchrun`, train together: each takes `recipe.batch_size` images.

    Args:
        recipe: all settings. With `resume` it may be left out, or change the length, the paths and what is logged.
        data: folder or annotation file (in place of `recipe.data.path`).
        out: a new run folder; default: the next free `runs/<recipe>-<n>`.
        resume: the folder of a run to continue, exactly from its last saved state.
        from_checkpoint: a trained detector to start from (in place of `recipe.start_from`): its file, `coco`, or a
            name that `singleshot download` lists.
        skip_bad: leave out images in which the check of the data finds errors (as `recipe.data.skip_bad` does).
        device: "cpu", "cuda", ... (in place of `recipe.compute.device`).
        builder: your own builder, as module:function (in place of `recipe.builder`). It must be named here, or in a
            recipe made in Python: the name in a recipe's file or in a run alone imports nothing.

    Raises:
        UserError: bad data, a bad recipe or folder, a full disk; or its subclass `DivergedError`: a loss is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM. The state is saved.
    """
    started = now()
    chosen = resolve(
        recipe,
        data=data,
        out=out,
        resume=resume,
        from_checkpoint=from_checkpoint,
        skip_bad=skip_bad,
        device=device,
        builder=builder,
    )
    with start_ranks(chosen.recipe.compute.device) as ranks:
        keep_freed_memory(ranks.device)
        with ranks.in_turn():  # the first process fills the cache of the check for the others
            found = setup.open_data(chosen.recipe, chosen.class_names)
        torch.manual_seed(chosen.recipe.seed)
        built = start.build_detector(chosen.recipe, found.train, chosen.source, resumed=chosen.stopped is not None)
        recipe_of_run = start.with_pixels(chosen.final(fresh=built.fresh), built.detector)
        run = Run(recipe_of_run, ranks, found, built.detector, started=started)
        run.folder = _folder(run, chosen, out)
        notes: list[str] = []
        with run.folder.alone() if ranks.first else nullcontext():
            if chosen.stopped is not None:
                chosen.stopped.must_be_last()
                notes = chosen.notes + saving.restore(run, chosen.stopped)
            else:
                begun = run.folder.begin() if ranks.first else ""
                notes = [begun, built.said] if begun else [built.said]
            if ranks.first and (chosen.stopped is None or notes):
                run.folder.write(run.folder.recipe, to_yaml(run.recipe).encode())
            with run.display:
                kept = [] if run.cache is None else [str(run.cache)]
                return _train(run, notes + found.warnings + _limits(run) + kept)


def _limits(run: Run) -> list[str]:
    """Said at the start: objects that the detector or the metric cannot count, however good the training is."""
    kept = getattr(run.detector.postprocess, "detections", None)
    return [] if kept is None else setup.limit_notes(run.data, kept)


def _folder(run: Run, chosen: Resolved, out: str | Path | None) -> RunFolder:
    """The folder of the run that continues, or a new one. It is created last, after all else has succeeded."""
    if chosen.stopped is not None:
        return chosen.stopped.folder
    made = RunFolder.create(out, run.recipe.name).path if run.ranks.first else Path()
    return RunFolder(run.ranks.broadcast(made))


def _train(run: Run, notes: list[str]) -> TrainResult:
    """From the current step to the end."""
    recipe, folder = run.recipe, run.folder
    result = TrainResult(folder.path, folder.best, folder.last, {})
    if run.progress.finished:
        steps = run.progress.step
        run.display.say(
            f"{folder.path}: this run is finished ({steps} steps). To train longer, give it more --epochs or --minutes"
        )
        return replace(result, metrics=run.progress.metrics)
    log.announce(run, notes)
    if run.progress.step == 0:
        saving.begin(run)
    run.trackers = tracking.Trackers(recipe.log.trackers if run.ranks.first else (), folder.path, to_plain(recipe))
    try:
        with stop_signals() as asked:
            loop(run, asked)
    finally:
        run.trackers.finish()
    return replace(result, metrics=run.progress.metrics)


def loop(run: Run, asked: StopSignals) -> None:
    """The loop: rate, losses, gradients, step, average; then the losses of the previous step, validation, saving."""
    progress = run.progress
    batches = run.batches()
    pending: PendingReport | None = None
    run.display.begin(progress.step)
    run.pace.begin()
    if run.clock is not None:
        run.clock.follow(run.ranks.broadcast(due.decide(run)))
    if due.validation(run) or due.end(run):  # the run was stopped during a validation, or its time is over
        with run.pace.pause():
            if due.validation(run):
                validation.validate(run, asked)
            progress.finished = progress.finished or (due.end(run) and not due.validation(run))
            saving.save(run)

    while not progress.finished:
        try:
            taken = [next(batches) for _ in range(run.accumulate)]
        except UserError as error:
            _without_batch(run, pending, asked, error)
        rate = run.rate_at(progress.step)
        losses = step(run, taken, rate)

        # The losses of the previous step have arrived by now: reading them does not make the device wait.
        stop, save = asked.stop and run.ranks.world == 1, due.save(run)
        if pending is not None:
            report = log.record(run, pending)
            stop, save = stop or report.stop, save or report.save
        run.pace.step()
        verdict = due.decide(run)
        if run.clock is not None and run.ranks.world == 1:
            run.clock.follow(verdict)
        pending = PendingReport(
            progress.step,
            losses,
            taken,
            run.ranks,
            rate=rate,
            stop=asked.stop,
            save=due.save_by_the_clock(run),
            verdict=verdict,
        )
        if around := stop or save or due.validation(run) or due.end(run):
            log.record(run, pending)  # it also checks that losses are finite: only then a state is saved
            pending = None
        if around:
            with run.pace.pause():
                if due.validation(run) and not stop:
                    validation.validate(run, asked)
                progress.finished = progress.finished or (due.end(run) and not due.validation(run))
                saving.save(run)
        if stop and not progress.finished:
            saving.interrupted(run)


def _without_batch(run: Run, pending: PendingReport | None, asked: StopSignals, error: UserError) -> NoReturn:
    """Save what was done, and stop: an image has gone, or a worker of the loader.

    A signal to the whole process group also ends the workers.
    """
    if run.ranks.world == 1:  # otherwise the other processes do not know, and all of them are needed for saving
        if pending is not None:
            log.record(run, pending)
        saving.save(run)
        if asked.stop and isinstance(error, WorkerLostError):
            saving.interrupted(run)
    raise saving.stopped_by(run, error) from error


def step(run: Run, batches: list[TrainBatch], rate: float) -> dict[str, Tensor]:
    """One step of the optimiser, at this rate, and of the average. Returns the losses of this process by name."""
    clip, progress = run.recipe.optimizer.clip_norm, run.progress
    run.set_mode()
    set_rate(run.optimizer, rate)
    run.optimizer.zero_grad(set_to_none=True)
    losses = backward(run.model, run.detector, batches)
    if clip is not None:
        nn.utils.clip_grad_norm_(run.detector.parameters(), clip)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.detector, progress.step)
    progress.step += 1
    return losses
