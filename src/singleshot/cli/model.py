"""A model from the file that the user named, on the device that the user wants."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from singleshot.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleshot.detectors.detector import Detector


def load_model(path: str, *, builder: str | None, device: str | None, wanted: str | None = None) -> Any:
    """What detects, in evaluation mode: a `Detector` from its weights, or an `ExportedDetector`.

    Args:
        path: the model's file; its ending says which engine opens it.
        builder: for a detector of the user's own, `my_lab.models:my_detector`; imported, as the user wrote it.
        device: None takes CUDA where there is one, and for an exported model the CPU.
        wanted: what is asked for that an exported model cannot do, for the error; None where it can.
    """
    from singleshot.engines import holds_weights, load, load_detector

    where = choose_device(device) if holds_weights(path) else device or "cpu"
    if wanted is not None:
        return load_detector(path, wanted=wanted, builder=_found(builder), device=where)
    return load(path, builder=_found(builder), device=where)


def _found(builder: str | None) -> Callable[..., Detector] | None:
    if builder is None:
        return None
    from singleshot.detectors.registry import find_builder

    allow_local_imports()
    return find_builder(builder)


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
