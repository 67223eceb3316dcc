"""What is due after a step: a validation, a save, the end."""

from __future__ import annotations

import time

from singleshot.training.run import Run


def validation(run: Run) -> bool:
    """Whether the weights of this step are to be measured, and have not been."""
    step, asked = run.progress.step, run.recipe.validation
    if run.data.val is None or run.progress.validated >= step:
        return False
    if asked.times is not None:
        before, now = ((at * asked.times) // run.total for at in (step - 1, step))
        return now > before
    return step % max(1, round(asked.every * run.steps_per_epoch)) == 0 or step == run.total


def early_end(run: Run) -> bool:
    """Whether the validations since the best one are as many as patience allows."""
    patience = run.recipe.validation.patience
    return patience is not None and run.progress.stale >= patience


def save(run: Run) -> bool:
    """Whether the state is to be written after this step, whatever else happens."""
    step, every = run.progress.step, run.recipe.log.save_every
    return step == run.total or (every is not None and step % every == 0)


def save_by_the_clock(run: Run) -> bool:
    """Whether the first process finds that the state was written long enough ago."""
    return run.ranks.first and time.monotonic() - run.saved_at > 60 * run.recipe.log.save_minutes
