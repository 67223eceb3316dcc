"""Training: a recipe, a visible loop, and a run folder that can be resumed exactly.

Imported when asked for: a recipe is plain data and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singleshot.training.loop import TrainResult as TrainResult
    from singleshot.training.loop import train as train
    from singleshot.training.recipe import Recipe as Recipe
    from singleshot.training.recipe import from_yaml as from_yaml
    from singleshot.training.recipe import override as override
    from singleshot.training.recipe import to_yaml as to_yaml
    from singleshot.training.step_report import DivergedError as DivergedError
    from singleshot.training.step_report import load_batch as load_batch

_WHERE = {
    "DivergedError": "step_report",
    "Recipe": "recipe",
    "TrainResult": "loop",
    "from_yaml": "recipe",
    "load_batch": "step_report",
    "override": "recipe",
    "to_yaml": "recipe",
    "train": "loop",
}

__all__ = ["DivergedError", "Recipe", "TrainResult", "from_yaml", "load_batch", "override", "to_yaml", "train"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
