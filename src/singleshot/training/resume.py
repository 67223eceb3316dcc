"""What may change when a run continues: settings, data, processes, machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singleshot.errors import UserError
from singleshot.plain_data import to_plain
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import Recipe, from_yaml, read_tree
from singleshot.training.run import Run
from singleshot.training.state import SavedState, file_stamp

# None of these changes what a step computes. Another length changes the rates from now on; the user is told.
FREE = (
    "data.path",
    "data.val_path",
    "data.val_split",
    "data.workers",
    "data.cache",
    "schedule.minutes",
    "schedule.epochs",
    "schedule.images",
    "schedule.steps",
    "validation.",
    "compute.device",
    "log.",
    "expected",
)
# Their product with the number of processes must stay (`check_run`): then a step takes the same images.
SHARE = ("batch_size", "optimizer.accumulate")


@dataclass(frozen=True)
class Stopped:
    """A run that continues: its folder, the recipe that its state was made by, and that state."""

    folder: RunFolder
    recipe: Recipe
    state: SavedState

    @classmethod
    def read(cls, path: str | Path) -> Stopped:
        """The run in a folder.

        Raises:
            UserError: the folder holds no run, or the run has saved no state.
        """
        folder = RunFolder.existing(path)
        state = SavedState.read(folder.state)
        # recipe.yaml may have been edited. Only states of older programs do not say what they were made by.
        made_by = state.made_by.recipe
        return cls(folder, read_tree(made_by, where=str(state.path)) if made_by else from_yaml(folder.recipe), state)

    def must_be_last(self) -> None:
        """Refuse a run that another process has continued since its state was read here."""
        if file_stamp(self.state.path) != self.state.stamp:
            raise UserError(f"{self.folder.path}: another process has continued this run meanwhile; start again")


def check_changes(before: Recipe, now: Recipe, folder: RunFolder) -> list[str]:
    """One line for each setting that changed since the run began.

    Raises:
        UserError: a setting changed that must stay the same in one run.
    """
    changes = differences(before, now)
    refused = [line for key, line in changes if not key.startswith(FREE) and key not in SHARE]
    if refused:
        raise UserError(
            f"{folder.path}: a run continues with the recipe that it began with, but these settings differ: "
            f"{'; '.join(refused)}. Undo these changes, or start a new run from its weights with --from {folder.last}"
        )
    return [f"changed since the run began: {line}" for _, line in changes]


def check_run(run: Run, stopped: Stopped) -> list[str]:
    """One line for each thing around the run that changed since the state was saved: data, processes, machine.

    Raises:
        UserError: a thing changed that makes it another run: the training data, the number of images in a step.
    """
    saved, before, now = stopped.state, stopped.state.made_by, run.made_by
    # A state of an older program knows only one fingerprint.
    old, new = (before.train, now.train) if before.train else (saved.progress.data, run.data.fingerprint)
    if old != new:
        raise UserError(
            f"{run.folder.path}: the training images or their boxes have changed since the run began: {old} -> {new}. "
            f"Restore the old data, or start a new run from its weights with --from {run.folder.last}"
        )
    processes = before.processes or saved.processes
    _check_images_per_step(run, stopped.recipe.batch_size * stopped.recipe.optimizer.accumulate * processes)
    notes = []
    if before.pixels and before.pixels != now.pixels:
        notes.append(f"the image files to train on {before.pixels} -> {now.pixels}; the run goes on with the new ones")
    if before.val and before.val != now.val and _val(stopped.recipe) == _val(run.recipe):
        notes.append(f"the images to validate on {before.val} -> {now.val}; what is best is decided anew")
    for name, was, comes in (
        ("processes", processes, now.processes),
        ("threads", before.threads, now.threads),
        ("torch", before.torch, now.torch),
        ("processor", before.machine, now.machine),
    ):
        if was and was != comes:
            notes.append(f"{name} {was} -> {comes}; sums are rounded differently, so the last bits differ")
    return [f"changed since the run began: {note}" for note in notes]


def _check_images_per_step(run: Run, before: int) -> None:
    if before == run.images_per_step:
        return
    world, accumulate = run.ranks.world, run.accumulate
    right, rest = divmod(before, world * accumulate)
    advice = "start as many processes as before" if rest else f"give --batch-size {right}"
    raise UserError(
        f"{run.folder.path}: a step of this run takes {before} images, but now it would take {run.images_per_step} "
        f"({run.recipe.batch_size} x {world} processes x {accumulate} batches), so it would see the images in another "
        f"order. To continue, {advice}"
    )


def same_measure(run: Run, stopped: Stopped) -> bool:
    """Whether the figures of earlier validations can be compared with those to come."""
    if stopped.recipe.validation.metric != run.recipe.validation.metric:
        return False
    before = stopped.state.made_by.val
    return before == run.made_by.val if before else _val(stopped.recipe) == _val(run.recipe)


def _val(recipe: Recipe) -> tuple[str | None, str | None]:
    return recipe.data.val_path, recipe.data.val_split


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
