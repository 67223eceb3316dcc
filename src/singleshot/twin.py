"""A second tree of modules over the same weights: it can be in another mode, or without values, beside the first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def twin(module: M, tensors: Callable[[Tensor], Tensor] | None = None, *, shared: Iterable[Any] = ()) -> M:
    """A copy of a module and its parts, in eval mode, with the same parameters and buffers; nothing is duplicated.

    `tensors`: gives the twin another tensor in place of each. `shared`: other objects that both use.
    What is changed on the twin (the mode, an attribute) is not changed on the module, so one thread may run the twin
    while another runs the module.

    Raises what `copy.deepcopy` raises for a part that cannot be copied, such as an open file.
    """
    held = [tensor for part in module.modules() for tensor in _tensors(part)]
    known: dict[int, Any] = {id(tensor): tensor if tensors is None else tensors(tensor) for tensor in held}
    known.update({id(one): one for one in shared})
    return copy.deepcopy(module, known).eval()


def _tensors(part: nn.Module) -> list[Tensor]:
    """Parameters and buffers, and tensors that a module holds as plain attributes."""
    everything = (*part._parameters.values(), *part._buffers.values(), *vars(part).values())
    return [value for value in everything if isinstance(value, Tensor)]
