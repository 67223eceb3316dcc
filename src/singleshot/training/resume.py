"""Which settings may change when a run continues."""

from __future__ import annotations

from typing import Any

from singleshot.errors import UserError
from singleshot.plain_data import to_plain
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import Recipe

# None of these changes what a step computes. Another length changes the rates from now on; the user is told.
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


def check_changes(before: Recipe, now: Recipe, folder: RunFolder) -> list[str]:
    """One line for each setting that changed since the run began.

    Raises:
        UserError: a setting changed that must stay the same in one run.
    """
    changes = differences(before, now)
    refused = [line for key, line in changes if not key.startswith(FREE)]
    if refused:
        raise UserError(
            f"{folder.path}: a run continues with the recipe that it began with, but these settings differ: "
            f"{'; '.join(refused)}. Undo these changes, or start a new run from its weights with --from {folder.last}"
        )
    return [f"changed since the run began: {line}" for _, line in changes]


def differences(before: Recipe, now: Recipe) -> list[tuple[str, str]]:
    """The fields in which two recipes differ: for each its dotted key, and a line with both values."""
    return _differences(to_plain(before), to_plain(now), "")


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in before.keys() | now.keys():
        key, old, new = f"{prefix}{name}", before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{key}.")
        elif old != new:
            found.append((key, f"{key} {old} -> {new}"))
    return sorted(found)
