"""Ctrl-C and SIGTERM: finish the step, save, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Whether the run was asked to stop. A second request stops it on the spot."""

    def __init__(self) -> None:
        self.stop = False
        self._immediate = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.stop or self._immediate:
            raise KeyboardInterrupt("stopped at once; the run goes on from the state saved last")
        self.stop = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a request raises `KeyboardInterrupt` where it comes: for work that changes nothing."""
        if self.stop:
            raise KeyboardInterrupt
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch the signals inside; outside of the main thread Python allows no handlers, and nothing is caught."""
    asked = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[signal.Signals, Any] = {number: signal.signal(number, asked.receive) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
