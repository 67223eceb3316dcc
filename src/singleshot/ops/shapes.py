"""What shapes a network makes, without computing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What PyTorch calls by these names changes the first tensor's values alone ...
_SAME = frozenset(
    {F.batch_norm, F.group_norm, F.relu, F.relu6, F.hardtanh, F.silu, F.hardswish}
    | {Tensor.relu, Tensor.square, Tensor.rsqrt, Tensor.sigmoid}
    | {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}
)
_PAIRS = frozenset({Tensor.add, Tensor.add_, Tensor.sub, Tensor.mul})  # ... and these by those of a second.


class ShapesOnly(TorchFunctionMode):
    """Inside, what changes the values of a tensor on the device "meta", but not its shape, is left out.

    Such a tensor has no values: norms, activations, sums and initialisers do nothing to it. PyTorch still works them
    out step by step in Python, with the help of its compiler, which it loads for that: nearly all of the time that it
    takes to build a network there, or to run it.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called by PyTorch for every function of tensors."""
        return args[0] if _only_values(func, args) else func(*args, **(kwargs or {}))


def _only_values(func: Callable[..., Any], args: Sequence[Any]) -> bool:
    if func in _SAME:
        return bool(args[0].is_meta)
    if func not in _PAIRS or len(args) < 2 or not args[0].is_meta:
        return False
    return not isinstance(args[1], Tensor) or _fits(args[1].shape, args[0].shape)


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether a tensor of the one shape, broadcast with one of the other, has the other."""
    ends = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(a in (1, b) for a, b in ends)


@contextmanager
def without_values() -> Iterator[None]:
    """Inside, networks are built without memory and time for weights, which come from elsewhere or are not needed."""
    with torch.device("meta"), ShapesOnly():
        yield


def map_sizes(backbone: nn.Module, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each map that `backbone` makes of an image of `image_size`; nothing is computed."""
    shadow = {name: tensor.to("meta") for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())}
    pixels = torch.empty(2, 3, *image_size, device="meta")  # two, because batch norm may refuse one
    with torch.no_grad(), torch.autocast("cpu", enabled=False), ShapesOnly():
        maps = torch.func.functional_call(backbone, shadow, (pixels,))
    return [(features.shape[-2], features.shape[-1]) for features in maps]
