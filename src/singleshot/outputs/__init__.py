"""Extra outputs: what a network may predict for each anchor besides class and box. One file per idea."""

from __future__ import annotations

import importlib
from typing import Any

from singleshot.outputs.output import Factor

OUTPUTS = {
    "IoUHead": "singleshot.outputs.iou",
    "Centreness": "singleshot.outputs.centreness",
}
"""The outputs that files, recipes and the command line may name, and the module of each."""


def find_output(name: str) -> Any:
    """The class of an output in `OUTPUTS`. It holds the choices; its `output()` returns an `ExtraOutput`."""
    return getattr(importlib.import_module(OUTPUTS[name]), name)


def factors() -> dict[str, tuple[str, Factor]]:
    """The factors of all outputs, by the factor's name: (the output's name in `OUTPUTS`, the factor)."""
    made = {name: find_output(name)().output().factor for name in OUTPUTS}
    return {factor.name: (name, factor) for name, factor in made.items() if factor is not None}
