"""The allowed values of a recipe's fields, beyond their types."""

from __future__ import annotations

from pathlib import Path

from singleshot.data.deep import DeepRange
from singleshot.data.formats import FORMATS
from singleshot.errors import UserError, shown
from singleshot.ranges import check_ranges
from singleshot.training.recipe import Recipe
from singleshot.training.schedule import check_length

METRICS = (
    *(
        f"coco.{name}"
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    ),
    "voc07.mAP",
    "voc10.mAP",
)
"""The metrics that may decide which weights are best: numbers of `singleshot evaluate`, by group and name."""


def check_values(recipe: Recipe, where: str | Path = "") -> None:
    """Refuse values that no run can have, before anything is opened. `where`: the file that holds the recipe.

    Raises:
        UserError: a value is out of range. The message names the file, the field, its value and the allowed values.
    """
    try:
        _check(recipe)
    except UserError as error:
        raise (UserError(f"{where}: {error}") if where else error) from None


def _check(recipe: Recipe) -> None:
    check_ranges(recipe)
    optimizer, form, metric = recipe.optimizer, recipe.data.format, recipe.validation.metric
    still = not optimizer.nesterov or optimizer.momentum > 0
    single = recipe.name not in ("", ".", "..") and not set(recipe.name) & set("/\\\0")  # it names the run's folder
    rules = (
        ("name", recipe.name, single, "the name of a folder"),
        ("data.format", form, form is None or form in FORMATS, f"null or {', '.join(FORMATS)}"),
        ("optimizer.nesterov", optimizer.nesterov, still, "false where momentum is 0"),
        ("validation.metric", metric, metric in METRICS, ", ".join(METRICS)),
    )
    DeepRange.of(recipe.data.deep_range)
    for name, value, right, expected in rules:
        if not right:
            raise UserError(f"{name} is {shown(value)}; expected {expected}")
    check_length(recipe.schedule)
