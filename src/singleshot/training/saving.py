"""The files of a run: write weights and state, and restore the state when the run continues."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from singleshot.errors import UserError
from singleshot.plain_data import to_plain
from singleshot.training import due, folder
from singleshot.training.pace import now
from singleshot.training.progress import minutes
from singleshot.training.recipe import Recipe
from singleshot.training.resume import Stopped, check_run, same_measure
from singleshot.training.run import Run
from singleshot.training.state import pack_state, random_state, set_random_state
from singleshot.weights import checkpoint


def save(run: Run) -> None:
    """Save weights and state. All processes must call this; the first one writes."""
    write(run, run.ranks.gather(random_state(run.ranks.device)))


def write(run: Run, random: list[dict[str, Tensor]]) -> None:
    """As `save`, with the random states of all processes given."""
    begin = now()
    if run.ranks.first:
        if run.clock is not None:
            run.progress.total, run.progress.seconds = max(1, run.progress.step), run.clock.used
        save_weights(run, run.folder.last)
        if run.progress.finished and run.data.val is None:
            save_weights(run, run.folder.best)
        # The state comes last: everything that it refers to is on the disk by then.
        _write_state(run, random)
    run.saved_at = now()
    if run.clock is not None:
        run.clock.saving = run.saved_at - begin


def begin(run: Run) -> None:
    """Save the state before the first step. From here on the run can be continued, whenever it is killed."""
    random = run.ranks.gather(random_state(run.ranks.device))
    if run.ranks.first:
        _write_state(run, random)


def _write_state(run: Run, random: list[dict[str, Tensor]]) -> None:
    average = run.average.detector if run.average is not None else None
    content = pack_state(run.progress, run.made_by, run.detector, run.optimizer, average, random)
    run.folder.write(run.folder.state, content)


def save_weights(run: Run, path: Path) -> None:
    """Write the weights as a file to share: with the recipe and the last figures, without paths of this machine."""
    recipe = without_paths(to_plain(run.recipe))
    with folder.saving(path):
        checkpoint.save(run.result_detector, path, recipe=recipe, metrics=_metrics(run))


def _metrics(run: Run) -> dict[str, Any]:
    """What is known about the current weights."""
    progress = run.progress
    known = progress.metrics if progress.validated == progress.step else {}
    return {"step": progress.step, "epoch": run.epoch(progress.step), **known}


def restore(run: Run, stopped: Stopped) -> list[str]:
    """Go back to a saved state: weights, average, optimiser, random generators, log.

    If the validation used another metric or other images until then, its best value does not count.

    Returns:
        One line for each thing that changed since the run began, and that the user should know.

    Raises:
        UserError: something changed that would make it another run, or the state does not fit.
    """
    saved = stopped.state
    notes = check_run(run, stopped)
    saved.restore(run.detector, run.optimizer, run.average.detector if run.average else None)
    set_random_state(saved.random(run.ranks.rank), run.ranks.device)
    run.progress = progress = saved.progress
    was_over = progress.finished and _time_was_over(stopped.recipe, run.recipe, progress.stale)
    if not same_measure(run, stopped):
        progress.best, progress.best_step, progress.stale = None, None, 0
    progress.total = max(run.total, progress.step)  # the run may be shorter now than it is already
    if run.clock is None:
        progress.finished = due.early_end(run) or (progress.step >= run.total and not due.validation(run))
    else:
        run.clock.before = progress.seconds
        progress.finished = due.early_end(run) or was_over
    if run.ranks.first:
        step, validated = saved.progress.step, saved.progress.validated
        notes += run.folder.cut_log(
            lambda entry: entry["step"] <= (validated if entry["kind"] == "validation" else step)
        )
    return notes


def _time_was_over(before: Recipe, now: Recipe, stale: int) -> bool:
    """Whether the clock ended a finished run, and it has no more time now. `stale`: as in its progress."""
    early = before.validation.patience is not None and stale >= before.validation.patience
    had, has = before.schedule.minutes, now.schedule.minutes
    return not early and had is not None and has is not None and has <= had


def rest(run: Run) -> str:
    """What follows the number of the step in a message about a run that stops."""
    return f" of {run.total}" if run.clock is None else f", with {minutes(run.clock.left)} left"


def interrupted(run: Run) -> NoReturn:
    """Stop as Ctrl-C does, and say how to continue."""
    raise KeyboardInterrupt(
        f"stopped after step {run.progress.step}{rest(run)}; everything is saved. Continue with: {run.folder.to_resume}"
    )


def stopped_by(run: Run, error: UserError) -> UserError:
    """The error that ends a run, with what is saved and how to continue."""
    saved = f"Everything is saved after step {run.progress.step}{rest(run)}: continue"
    if run.ranks.world > 1:
        saved = "Continue from the state saved last"
    return UserError(f"{str(error).rstrip('.')}. {saved} with `{run.folder.to_resume}`")


def without_paths(tree: Any) -> Any:
    """The recipe for a weights file, with file names instead of absolute paths, since that file may be shared."""
    if isinstance(tree, dict):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return [without_paths(value) for value in tree]
    return Path(tree).name if isinstance(tree, str) and os.path.isabs(tree) else tree
