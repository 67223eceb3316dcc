"""The display of a run on stderr: a progress bar on a terminal, elsewhere a plain line every 30 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from singleshot.errors import readable_lines


class Display:
    """Shows steps, losses, rate, speed and time left. With `quiet` it shows nothing (all processes but the first)."""

    interval = 30.0  # seconds between two plain lines

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.total = total
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self._last = self._start = time.monotonic()
        self._first_step = 0
        if not quiet and sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
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
        self._first_step, self._start = step, time.monotonic()
        if self.bar is not None:
            self.task = self.bar.add_task("training", total=self.total, completed=step, text="")

    def step(self, step: int, losses: dict[str, float], rate: float, speed: float) -> None:
        """Show a finished step; `speed` is in images per second."""
        if self.quiet:
            return
        text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text += f" lr {rate:.2e} {speed:.1f} images/s"
        if self.bar is not None and self.task is not None:
            with self._while_there_is_a_screen():
                self.bar.update(self.task, completed=step, text=text)
        elif (now := time.monotonic()) - self._last >= self.interval:
            self._last = now
            done = step - self._first_step
            left = (now - self._start) / done * (self.total - step) if done else 0.0
            self.say(f"step {step}/{self.total} {text} {_minutes(left)} left")

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if not self.quiet:
            self.console.print(readable_lines(text), markup=False)


class Speedometer:
    """Images per second, over about the last ten steps."""

    def __init__(self, images_per_step: int) -> None:
        self._images = images_per_step
        self._seconds: float | None = None  # per step, smoothed
        self._last = time.monotonic()
        self._step: int | None = None

    def update(self, step: int) -> float:
        """The speed after this step."""
        now = time.monotonic()
        if self._step is not None and step > self._step:
            seconds = (now - self._last) / (step - self._step)
            self._seconds = seconds if self._seconds is None else 0.9 * self._seconds + 0.1 * seconds
        self._last, self._step = now, step
        return self._images / self._seconds if self._seconds else 0.0


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60}:{whole % 60:02d} min"
