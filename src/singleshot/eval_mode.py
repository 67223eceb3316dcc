"""Temporary eval mode, and training mode that does not change batch-norm statistics."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import nn

T = TypeVar("T")

_lock = threading.Lock()  # held for moments only: never while something is computed
_switched: WeakKeyDictionary[nn.Module, _Switch] = WeakKeyDictionary()


@contextmanager
def evaluating(module: T) -> Iterator[T]:
    """Gives what to call in place of `module` within the block, in eval mode.

    A `Detector` that trains is not touched: the block gets a second one over the same weights (`Detector.evaluator`),
    so that a thread may predict while another trains. Any other module is switched itself. It has its former mode
    again (a norm may be frozen by itself) when the last thread leaves its block.
    """
    evaluator = getattr(module, "evaluator", None)
    second = evaluator() if isinstance(module, nn.Module) and evaluator is not None else None
    if second is not None:
        yield second
    elif isinstance(module, nn.Module):
        with _eval_mode(module):
            yield module
    else:
        yield module


class _Switch:
    """The parts of a module that were in training mode, and how many blocks need them in eval mode."""

    def __init__(self, module: nn.Module) -> None:
        self.blocks = 0
        self.training = [part for part in module.modules() if part.training]


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    with _lock:
        if module not in _switched:
            _switched[module] = _Switch(module)
        switch = _switched[module]
        switch.blocks += 1
        for part in switch.training:
            part.training = False
    try:
        yield
    finally:
        with _lock:
            switch.blocks -= 1
            if not switch.blocks:
                del _switched[module]
                for part in switch.training:
                    part.training = True


def _after_fork() -> None:
    # The threads of the other process are not here: nobody would release the lock or leave a block.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def norms_not_following(module: nn.Module) -> Iterator[None]:
    """Training mode in which batch norm uses the statistics of its batch but does not store them."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    following = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, mode in zip(norms, following, strict=True):
            norm.track_running_stats = mode
