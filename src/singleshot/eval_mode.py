"""Temporary eval mode, and training mode that does not change batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: object) -> Iterator[None]:
    """Eval mode within the block. Afterwards every part has its former mode (a norm may be frozen by itself)."""
    training = [part for part in module.modules() if part.training] if isinstance(module, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


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
