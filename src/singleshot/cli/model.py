"""Loads the model file that the user named, on the device that the user chose."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from singleshot.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleshot.detectors.detector import Detector


def load_model(path: str, *, builder: str | None, device: str | None, wanted: str | None = None) -> Any:
    """Load a model in evaluation mode: a `Detector` from its weights, or an `ExportedDetector`.

    Args:
        path: the model's file; its suffix determines the engine that opens it.
        builder: for the user's own detector, `my_lab.models:my_detector`; it is imported.
        device: None: CUDA if available; for an exported model the CPU.
        wanted: a feature that an exported model does not have, for the error; None if an exported model is fine.
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
    """The name of an available device; a `UserError` if the named one is not available."""
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
        raise UserError(f"--device {name}: this machine (or this build of torch) lacks this device; use --device cpu")
    return name


def allow_local_imports() -> None:
    """Make `my_lab.models:my_detector` importable from the current folder, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end, so that no file there hides an installed library
