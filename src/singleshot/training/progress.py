"""The display of a run on stderr: a progress bar on a terminal, elsewhere a plain line every 30 seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from singleshot.errors import readable_lines
from singleshot.training.pace import now


class Display:
    """Shows steps, losses, rate, speed and time left. With `quiet` it shows nothing (all processes but the first)."""

    interval = 30.0  # seconds between two plain lines

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        """`total`: the steps of the run; 0: not known, since it is bounded in time."""
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.total = total
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self._last = now()
        if not quiet and sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TextColumn("{task.fields[text]}"),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )

    def __enter__(self) -> Display:
        with self._while_there_is_a_screen():
            if self.bar is not None:
                self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._while_there_is_a_screen():
            if self.bar is not None:
                self.bar.stop()

    @contextmanager
    def _while_there_is_a_screen(self) -> Iterator[None]:
        """When the terminal was closed, or the program that reads our messages has ended, the run goes on silently."""
        try:
            yield
        except OSError:
            self.quiet = self.console.quiet = True
            self.bar = None

    def begin(self, step: int) -> None:
        """Training starts, or continues, after this step."""
        if self.bar is not None:
            self.task = self.bar.add_task("training", total=1.0, count=self._count(step), text="", left="")

    def step(
        self, step: int, losses: dict[str, float], *, rate: float, speed: float, share: float, left: float | None
    ) -> None:
        """Show a finished step.

        Args:
            step: its number; the first is 1.
            losses: by name.
            rate: the learning rate.
            speed: in images per second.
            share: of the whole run that is done.
            left: seconds; None: not known yet.
        """
        if self.quiet:
            return
        text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text += f" lr {rate:.2e} {speed:.1f} images/s"
        time_left = "" if left is None else f"{minutes(left)} left"
        if self.bar is not None and self.task is not None:
            with self._while_there_is_a_screen():
                self.bar.update(self.task, completed=share, count=self._count(step), text=text, left=time_left)
        elif now() - self._last >= self.interval:
            self._last = now()
            self.say(f"step {self._count(step)} {text} {time_left}".rstrip())

    def _count(self, step: int) -> str:
        return f"{step}/{self.total}" if self.total else str(step)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if not self.quiet:
            with self._while_there_is_a_screen():
                self.console.print(readable_lines(text), markup=False)


def minutes(seconds: float) -> str:
    """A duration to read: 2:31 min, 3 h 20 min."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60}:{whole % 60:02d} min"
