"""The exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """A copy of a detector whose weights follow the trained ones slowly. This copy is evaluated and saved.

    After step t (the first is 0): average = d * average + (1 - d) * weights with d = min(decay, (1 + t) / (ramp + t)).
    Because of the ramp, the first steps count fully. Batch norm statistics are averaged like weights. Integer values
    are copied.
    """

    def __init__(self, detector: M, *, decay: float, ramp: float = 10.0) -> None:
        self.detector: M = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp

    @torch.no_grad()
    def update(self, detector: nn.Module, step: int) -> None:
        """Move the average towards the weights after step `step`."""
        weight = 1.0 - min(self.decay, (1 + step) / (self.ramp + step))
        ours, theirs = [], []
        state = detector.state_dict()
        for name, value in self.detector.state_dict().items():
            if value.is_floating_point():
                ours.append(value)
                theirs.append(state[name])
            else:
                value.copy_(state[name])
        torch._foreach_lerp_(ours, theirs, weight)
