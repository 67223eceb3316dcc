"""What a detector keeps about the sizes of inputs that it has seen: the shapes of its maps, and its anchors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import nn

from singleshot.ops.shapes import map_sizes, shadow
from singleshot.structures import Anchors

Size = tuple[int, int]
Shapes = tuple[Size, ...]
K = TypeVar("K")
V = TypeVar("V")
_KEPT = 128  # anchors of 800 x 1333 pixels take 3 MB: many image shapes must not fill the memory


class Sizes:
    """Shapes and anchors of the latest input sizes, for any number of threads.

    There is no lock. A value depends on its key only, and it is stored in one step. So threads that miss the same value
    at the same time only make it twice, no thread waits for another, and a process may be forked at any time. A copy
    or pickle of a detector begins with nothing kept.
    """

    def __init__(self) -> None:
        self._shadow: nn.Module | None = None  # a copy of the network without values: the network itself may be in use
        self._shapes: OrderedDict[Size, Shapes] = OrderedDict()
        self._anchors: OrderedDict[tuple[Size, torch.device], Anchors] = OrderedDict()

    def __reduce__(self) -> Any:
        return Sizes, ()

    def shapes(self, size: Size, *parts: nn.Module) -> Shapes:
        """(h, w) of each map that the `parts`, one after the other, give for an input of (height, width)."""

        def make() -> Shapes:
            network = self._shadow
            if network is None:
                self._shadow = network = shadow(nn.Sequential(*parts))
            return tuple(map_sizes(network, size))

        return _kept(self._shapes, size, make)

    def anchors(self, size: Size, device: torch.device, make: Callable[[], Anchors]) -> Anchors:
        """The anchors of an input size on a device; `make` makes them if they are not kept."""
        return _kept(self._anchors, (size, device), make)


def _kept(values: OrderedDict[K, V], key: K, make: Callable[[], V]) -> V:
    found = values.get(key)
    if found is None:
        found = values[key] = make()
    with suppress(KeyError):  # another thread may have dropped it
        values.move_to_end(key)
        while len(values) > _KEPT:
            values.popitem(last=False)
    return found
