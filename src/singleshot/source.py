"""What a file of weights holds: tensors by name, and the plain data beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

CLASS_NAMES = "class_names"
"""The note with the names of the classes, in the order of the weights: the file's, or those that the user gives."""


@dataclass(frozen=True)
class Source:
    """What was read from a file of weights of any program."""

    tensors: Mapping[str, Tensor]
    """The tensors under their own names, on the CPU."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Plain data beside the tensors, such as class names or settings; empty if there is none."""
    where: str = ""
    """What messages begin with: "FILE: "; empty for a state dict."""

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of each tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
