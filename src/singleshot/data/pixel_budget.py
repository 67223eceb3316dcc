"""A limit on the pixels that the threads of one process decode at the same time."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Lets threads decode images while they have no more than `most` pixels together; the others wait their turn.

    An image with more pixels than that is decoded alone. Nobody overtakes: a large image does not wait for ever while
    small ones pass. After a fork the child has a budget of its own, with nothing in use.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)  # the threads that hold pixels are not in the child

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._free = self.most
        self._waiting: deque[object] = deque()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until an image of this size may be decoded, and hold its pixels within the block.

        Do not hold twice in one thread: it could wait for itself.
        """
        needed, turn = min(pixels, self.most), object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= needed)
                self._free -= needed
            finally:  # also when Ctrl-C ends the wait
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += needed
                self._changed.notify_all()
