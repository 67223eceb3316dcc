"""What is due after a step: a validation, a save, the end.

A run by the number of steps knows all of it beforehand, in every process. In a run by the clock the first process
decides (`decide`), and its verdict reaches all with the losses of the step.
"""

from __future__ import annotations

from singleshot.training.clock import Clock, Verdict
from singleshot.training.pace import now
from singleshot.training.run import Run

VALIDATING = 0.25
"""By the clock, validations before the last one take at most this share of the time so far: others are left out."""


def validation(run: Run) -> bool:
    """Whether to validate now: this step asks for it, and its weights were not measured yet."""
    step, asked = run.progress.step, run.recipe.validation
    if run.data.val is None or run.progress.validated >= step:
        return False
    if run.clock is not None:
        return run.clock.verdict.validate or run.clock.verdict.over
    if asked.times is not None:
        before, after = ((at * asked.times) // run.total for at in (step - 1, step))
        return after > before
    return step % _steps_between(run) == 0 or step == run.total


def end(run: Run) -> bool:
    """Whether the run has its length. A last validation may still be due."""
    return run.progress.step >= run.total if run.clock is None else run.clock.verdict.over


def early_end(run: Run) -> bool:
    """Whether to stop early: patience allows no more validations without a better one."""
    patience = run.recipe.validation.patience
    return patience is not None and run.progress.stale >= patience


def save(run: Run) -> bool:
    """Whether the recipe asks for saving the state after this step."""
    step, every = run.progress.step, run.recipe.log.save_every
    return end(run) or (every is not None and step % every == 0)


def save_by_the_clock(run: Run) -> bool:
    """Whether the last save is `log.save_minutes` ago. Only the first process decides this."""
    return run.ranks.first and now() - run.saved_at > 60 * run.recipe.log.save_minutes


# ------------------------------------------------------------------------------------------------ a run by the clock
def decide(run: Run) -> Verdict:
    """What follows from the time that is used. Others than the first process have no say."""
    clock, progress = run.clock, run.progress
    if clock is None or not run.ranks.first:
        return Verdict()
    step, used, end = run.pace.expected, clock.used, _end_of_training(run, clock)
    # Other processes follow after one more step (`Verdict`): then a second one must fit. At least one step is made.
    before = step if run.ranks.world > 1 else 0.0
    over = progress.step > 0 and used + before + step > end
    return Verdict(share=_share(used + before, end), validate=_wanted(run, clock) and not over, over=over)


def validated(run: Run, seconds: float) -> None:
    """Note that a validation took this long, and decide about what follows. All processes must call this."""
    if (clock := run.clock) is None:
        return
    progress = run.progress
    progress.validating += seconds
    progress.validation_seconds = seconds
    progress.validated_share = _share(clock.used, _end_of_training(run, clock))
    clock.follow(run.ranks.broadcast(decide(run)))


def _end_of_training(run: Run, clock: Clock) -> float:
    """When training must stop, in seconds of the run, for the last validation and the last save to fit."""
    closing = 1.1 * _validation_seconds(run) + 1.2 * clock.saving
    return clock.limit - min(closing, clock.limit / 2)


def _validation_seconds(run: Run) -> float:
    """As long as the last one. Before the first: half as long as training on so many images; 0: not known either."""
    if run.data.val is None:
        return 0.0
    return run.progress.validation_seconds or 0.5 * len(run.data.val) * run.pace.expected / run.images_per_step


def _share(used: float, end: float) -> float:
    return min(used / end, 1.0)


def _wanted(run: Run, clock: Clock) -> bool:
    """Whether a validation before the last one is due, fits, and is worth its time."""
    if run.data.val is None:
        return False
    progress, asked, used, cost = run.progress, run.recipe.validation, clock.used, _validation_seconds(run)
    end = _end_of_training(run, clock)
    if asked.times is not None:
        passed = int(_share(used, end) * asked.times) > int(progress.validated_share * asked.times)
    else:
        between = _steps_between(run)
        passed = (progress.step + (run.ranks.world > 1)) // between > progress.validated // between
    fits = used + cost + 2 * run.pace.expected <= end
    known = cost > 0  # else it could take all of the time that is left
    return passed and known and fits and progress.validating + cost <= VALIDATING * (used + cost)


def _steps_between(run: Run) -> int:
    """Steps from one validation to the next, by `validation.every`."""
    return max(1, round(run.recipe.validation.every * run.steps_per_epoch))
