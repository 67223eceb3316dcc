"""Processes that were forked from one that had computed: what of it they can use, and what they must not touch.

A fork copies the memory of a process, but none of its threads except one. A pool of threads that the parent has started
looks alive in the child, and whoever gives it work waits for ever. So a library that keeps a pool is used only in the
process that started the pool.
"""

from __future__ import annotations

import os

_torch_computed = False


def torch_computes() -> None:
    """Say that this process computes with PyTorch. Processes that are forked from it then compute with one thread.

    With more threads they would hang in their first larger operation: PyTorch's pool did not come along. PyTorch's own
    loader does the same for its workers.
    """
    global _torch_computed
    _torch_computed = True


def _in_child() -> None:
    if _torch_computed:
        import torch

        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)


class Once:
    """Remembers the process that uses something first, and tells whether another process holds only a copy of it."""

    def __init__(self) -> None:
        self._process: int | None = None

    def is_of_parent(self) -> bool:
        """Whether the first use was in another process, so that this one was forked after it."""
        if self._process is None:
            self._process = os.getpid()
        return self._process != os.getpid()
