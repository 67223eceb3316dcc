"""What is due after a step: a validation, a save, the end."""

from __future__ import annotations

from singleshot.training.pace import now
from singleshot.training.run import Run


def validation(run: Run) -> bool:
    """Whether to validate now: this step asks for it, and its weights were not measured yet."""
    step, asked = run.progress.step, run.recipe.validation
    if run.data.val is None or run.progress.validated >= step:
        return False
    if asked.times is not None:
        before, now = ((at * asked.times) // run.total for at in (step - 1, step))
        return now > before
    return step % max(1, round(asked.every * run.steps_per_epoch)) == 0 or step == run.total


def early_end(run: Run) -> bool:
    """Whether to stop early: patience allows no more validations without a better one."""
    patience = run.recipe.validation.patience
    return patience is not None and run.progress.stale >= patience


def save(run: Run) -> bool:
    """Whether the recipe asks for saving the state after this step."""
    step, every = run.progress.step, run.recipe.log.save_every
    return step == run.total or (every is not None and step % every == 0)


def save_by_the_clock(run: Run) -> bool:
    """Whether the last save is `log.save_minutes` ago. Only the first process decides this."""
    return run.ranks.first and now() - run.saved_at > 60 * run.recipe.log.save_minutes
