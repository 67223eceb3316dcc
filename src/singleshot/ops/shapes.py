"""The shapes of a network's maps, found without computing the maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from singleshot.twin import twin

# These functions of PyTorch change only the values of their first tensor, not its shape ...
_SAME = frozenset(
    {F.batch_norm, F.group_norm, F.relu, F.relu6, F.hardtanh, F.silu, F.hardswish}
    | {Tensor.relu, Tensor.square, Tensor.rsqrt, Tensor.sigmoid}
    | {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}
)
_PAIRS = frozenset({Tensor.add, Tensor.add_, Tensor.sub, Tensor.mul})  # ... and so do these, which take a second one.


class ShapesOnly(TorchFunctionMode):
    """Skips operations that change only the values of a tensor on the device "meta", not its shape.

    Such a tensor has no values, so norms, activations, sums and initialisers have no effect on it. PyTorch would still
    work through them step by step in Python and load its compiler for that. This takes nearly all of the time for
    building or running a network on "meta". The shape of a convolution is computed here: for its check of the sizes
    PyTorch loads SymPy, half a second of the time to the first detection. `convolutions=False` leaves them to PyTorch,
    for those who count them.
    """

    def __init__(self, *, convolutions: bool = True) -> None:
        super().__init__()
        self.convolutions = convolutions

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called by PyTorch for every function of tensors."""
        if self.convolutions and func is F.conv2d and not kwargs and (shape := _convolved(*args)) is not None:
            return args[0].new_empty(shape)
        return args[0] if _only_values(func, args) else func(*args, **(kwargs or {}))


def _convolved(
    image: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> list[int] | None:
    """The shape of a convolution's result on "meta"; None: PyTorch finds it, or an error. It loads SymPy for that."""
    numbers = [(one, one) if isinstance(one, int) else one for one in (stride, padding, dilation)]
    if not image.is_meta or image.ndim != 4 or any(isinstance(one, str) for one in numbers):
        return None
    sides = [
        (side + 2 * pad - step * (kernel - 1) - 1) // by + 1
        for side, kernel, by, pad, step in zip(image.shape[2:], weight.shape[2:], *numbers, strict=True)
    ]
    fits = image.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    return [image.shape[0], weight.shape[0], *sides] if min(sides) > 0 and fits else None


def _only_values(func: Callable[..., Any], args: Sequence[Any]) -> bool:
    if func in _SAME:
        return bool(args[0].is_meta)
    if func not in _PAIRS or len(args) < 2 or not args[0].is_meta:
        return False
    return not isinstance(args[1], Tensor) or _fits(args[1].shape, args[0].shape)


def _fits(small: Sequence[int], large: Sequence[int]) -> bool:
    """Whether broadcasting a tensor of shape `small` with one of shape `large` gives shape `large`."""
    ends = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(a in (1, b) for a, b in ends)


@contextmanager
def without_values() -> Iterator[None]:
    """Build networks without memory and time for their weights, for weights that are loaded later or not needed."""
    with torch.device("meta"), ShapesOnly():
        yield


def map_sizes(backbone: nn.Module, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of each map that `backbone` gives for an image of `image_size`; no map is computed.

    A `shadow` is asked itself; of any other module one is made, and the module is not run.
    """
    held = next(backbone.parameters(), None)
    asked = backbone if held is not None and held.is_meta else shadow(backbone)
    pixels = torch.empty(2, 3, *image_size, device="meta")  # two, because batch norm may refuse one
    with torch.no_grad(), torch.autocast("cpu", enabled=False), ShapesOnly():
        maps = asked(pixels)
    return [(features.shape[-2], features.shape[-1]) for features in maps]


def shadow(network: nn.Module) -> nn.Module:
    """A `twin` of a network without values, on the device "meta": it knows shapes only, and takes no memory."""
    return twin(network, _without_values)


def _without_values(tensor: Tensor) -> Tensor:
    bare = tensor.detach().to("meta", torch.float32 if tensor.is_floating_point() else tensor.dtype)
    return nn.Parameter(bare, requires_grad=False) if isinstance(tensor, nn.Parameter) else bare
