"""Ctrl-C, SIGTERM, SIGHUP (the terminal is gone) and SIGUSR1 (clusters): finish the step, save, stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MAYBE_IGNORED = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Where the system has them. If they are ignored, as `nohup` asks for SIGHUP, they stay ignored."""


class StopSignals:
    """Whether the run was asked to stop. A second request, some seconds later, stops it at once."""

    # Seconds. The terminal sends Ctrl-C to all processes, and torchrun then sends it again: that is one request.
    patience = 3.0

    def __init__(self) -> None:
        self.stop = False
        self._asked_at = 0.0
        self._immediate = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if not self.stop:
            self.stop, self._asked_at = True, time.monotonic()
            if self._immediate:
                raise KeyboardInterrupt
        elif time.monotonic() - self._asked_at > self.patience:
            raise KeyboardInterrupt("stopped at once; --resume continues from the state saved last")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a stop request raises `KeyboardInterrupt` immediately. For work that changes nothing."""
        if self.stop:
            raise KeyboardInterrupt
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch the signals inside. Python allows handlers in the main thread only; elsewhere nothing is caught."""
    asked = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    caught = [*SIGNALS, *(number for number in MAYBE_IGNORED if signal.getsignal(number) is not signal.SIG_IGN)]
    before: dict[signal.Signals, Any] = {number: signal.signal(number, asked.receive) for number in caught}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
