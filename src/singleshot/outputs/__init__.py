"""What a network may say of each anchor beside its class and its box: one file per idea."""

from __future__ import annotations

import importlib
from typing import Any

from singleshot.outputs.output import Factor

OUTPUTS = {
    "IoUHead": "singleshot.outputs.iou",
    "Centreness": "singleshot.outputs.centreness",
}
"""The outputs that files, recipes and the command line may name, and the module that each is in."""


def find_output(name: str) -> Any:
    """The class of an output in `OUTPUTS`: its choices, whose `output()` is an `ExtraOutput`."""
    return getattr(importlib.import_module(OUTPUTS[name]), name)


def factors() -> dict[str, tuple[str, Factor]]:
    """The number of each output in the score, by its name: the output's name in `OUTPUTS`, and the factor."""
    made = {name: find_output(name)().output().factor for name in OUTPUTS}
    return {factor.name: (name, factor) for name, factor in made.items() if factor is not None}
