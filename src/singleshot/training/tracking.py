"""Experiment trackers (TensorBoard, W&B, MLflow), through accelerate, when a recipe asks for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from singleshot.errors import UserError

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def require(names: Sequence[str]) -> None:
    """Check that the packages are installed, before anything is created."""
    missing = [name for name in names if importlib.util.find_spec(PACKAGES[name]) is None]
    if missing:
        raise UserError(
            f"the tracker {missing[0]!r} needs its package, which is not installed: pip install {PACKAGES[missing[0]]}"
        )


class Trackers:
    """Any number of trackers, which all get the same numbers."""

    def __init__(self, names: Sequence[str], folder: Path, config: dict[str, Any]) -> None:
        self._trackers: list[Any] = []
        if not names:
            return
        from accelerate import tracking

        for name in names:
            if name == "tensorboard":
                tracker: Any = tracking.TensorBoardTracker(folder.name, logging_dir=folder)
            elif name == "wandb":
                tracker = tracking.WandBTracker("singleshot", name=folder.name, dir=folder)
            else:
                tracker = tracking.MLflowTracker("singleshot", run_name=folder.name)
            # accelerate 1.x opens a tracker with start(); older versions opened it when it was created.
            if hasattr(tracker, "start"):
                tracker.start()
            tracker.store_init_configuration(_flat(config))
            self._trackers.append(tracker)

    def log(self, values: dict[str, float], step: int) -> None:
        """Send the numbers of a step."""
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def finish(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.finish()


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and plain values: some trackers take nothing else."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat
