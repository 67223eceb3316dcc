"""From images to the network's input and back: the rules, and their two implementations, on tensors and on arrays.

The rules and the implementation on arrays do not need PyTorch: an exported detector uses only these. So nothing is
imported here before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singleshot.preprocess.pixels import Pixels as Pixels
    from singleshot.preprocess.preprocess import Preprocess as Preprocess
    from singleshot.preprocess.rules import KeepAspect as KeepAspect
    from singleshot.preprocess.rules import Stretch as Stretch

_WHERE = {"KeepAspect": "rules", "Pixels": "pixels", "Preprocess": "preprocess", "Stretch": "rules"}

__all__ = ["KeepAspect", "Pixels", "Preprocess", "Stretch"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
