"""What may be different in a recipe when a run goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from singleshot.errors import UserError
from singleshot.plain_data import to_plain
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import Recipe
from singleshot.training.start import with_nothing_to_keep

# Nothing here changes what a step computes; another length changes the rates from now on, which is said.
FREE = (
    "data.path",
    "data.val_path",
    "data.val_split",
    "data.workers",
    "schedule.epochs",
    "schedule.images",
    "schedule.steps",
    "validation.",
    "compute.device",
    "log.",
    "expected",
)


def resolved_as(before: Recipe, now: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with what it leaves open as the run settled it, and lines about what has no effect in it.

    Left open are the precision, the architecture of `start_from`, and what protects the weights of a backbone that has
    none.
    """
    if now.compute.precision == "auto":
        now = replace(now, compute=replace(now.compute, precision=before.compute.precision))
    if now.start_from is not None and now.start_from == before.start_from:
        agrees = now.builder == before.builder and {**before.arguments, **now.arguments} == before.arguments
        if agrees or now.start == "file":
            now = replace(
                now,
                builder=before.builder,
                arguments=before.arguments,
                defaults=before.defaults and now.defaults,  # none for a network that the file describes
                start=before.start,
            )
    anew = with_nothing_to_keep(now)
    settled = replace(
        now,
        optimizer=before.optimizer if before.optimizer == anew.optimizer else now.optimizer,
        arguments=before.arguments if before.arguments == anew.arguments else now.arguments,
    )
    without = ", ".join(line for _, line in _differences(to_plain(now), to_plain(settled)))
    return settled, [f"the backbone was drawn anew and has nothing to keep: {without}"] if without else []


def check_changes(before: Recipe, now: Recipe, folder: RunFolder) -> list[str]:
    """Lines about what the recipe says now that the run did not begin with.

    Raises:
        UserError: a change after which the run would not be a continuation.
    """
    changes = _differences(to_plain(before), to_plain(now))
    refused = [line for key, line in changes if not key.startswith(FREE)]
    if refused:
        raise UserError(
            f"{folder.path}: a run goes on with the recipe that it began with, but these differ: {'; '.join(refused)}. "
            "Leave them away, or start a new run (--from takes its weights)"
        )
    return [f"changed since the run began: {line}" for _, line in changes]


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in before.keys() | now.keys():
        key, old, new = f"{prefix}{name}", before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{key}.")
        elif old != new:
            found.append((key, f"{key} {old} -> {new}"))
    return sorted(found)
