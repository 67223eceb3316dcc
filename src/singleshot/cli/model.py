"""A detector from the file that the user named, on the device that the user wants."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from singleshot.errors import UserError

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector


def load_model(path: str, *, builder: str | None, device: str | None) -> Detector:
    """The detector in evaluation mode.

    Args:
        builder: for a detector of the user's own, `my_lab.models:my_detector`; imported, as the user wrote it.
        device: None takes CUDA where there is one.
    """
    from singleshot.detectors.registry import find_builder
    from singleshot.weights.checkpoint import load

    if builder is not None:
        allow_local_imports()
    build = None if builder is None else find_builder(builder)
    return load(path, builder=build, device=choose_device(device))


def choose_device(name: str | None) -> str:
    """A device that is there; a `UserError` for another."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device: expected cpu or cuda, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: expected cpu or cuda, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine (or this build of torch) has no such device: use --device cpu")
    return name


def allow_local_imports() -> None:
    """Let `my_lab.models:my_detector` be found in the folder where the command is given, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end: nothing there hides an installed library
