"""The time of a run that `schedule.minutes` bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from singleshot.training.pace import now


@dataclass(frozen=True)
class Verdict:
    """What the first process decides after a step (`due.decide`).

    With several processes it travels with the losses, so that nobody waits: all follow it after their next step.
    """

    share: float = 0.0  # of the time to train, at the start of the step that follows: 0 to 1
    validate: bool = False
    over: bool = False  # the time is over: a last validation, a last save

    def numbers(self) -> list[float]:
        """As numbers that can travel with the losses."""
        return [self.share, float(self.validate), float(self.over)]


class Clock:
    """How much of the time is used. It runs from the call of `train`, and goes on where a resumed run was saved."""

    def __init__(self, minutes: float, started: float) -> None:
        self.limit = 60 * minutes  # seconds
        self.before = 0.0  # seconds until the state that this process continues from
        self.saving = 0.0  # seconds that the last save took
        self.verdict = Verdict()
        self._started = started

    @property
    def used(self) -> float:
        """Seconds of the run, until now."""
        return self.before + now() - self._started

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.limit - self.used)

    def follow(self, verdict: Verdict) -> None:
        """Take a newer verdict. The end that was once decided is the end."""
        self.verdict = replace(verdict, over=verdict.over or self.verdict.over)
