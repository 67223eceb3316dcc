"""Loads the model file that the user named, on the device that the user chose."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from singleshot.devices import find_device
from singleshot.errors import UserError, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from singleshot.detectors.detector import Detector


def load_model(
    path: str,
    *,
    builder: str | None,
    device: str | None,
    wanted: str | None = None,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    exact: bool = False,
) -> Any:
    """Load a model in evaluation mode: a `Detector` from its weights, or an `ExportedDetector`.

    Args:
        path: the model's file; its suffix determines the engine that opens it.
        builder: for the user's own detector, `my_lab.models:my_detector`; it is imported.
        device: None: CUDA if available; for an exported model the CPU.
        wanted: a feature that an exported model does not have, for the error; None if an exported model is fine.
        engine: the engine's name; "auto" is PyTorch for weights, else that of the file.
        precision: a word of `singleshot.engines.options`.
        threads: how many compute; None: the engine's own choice.
        exact: compute in float32 if the precision is "auto".
    """
    from singleshot.data.images import IMAGE_SUFFIXES
    from singleshot.engines import holds_weights, refuse_engine, refuse_exported, run_by
    from singleshot.engines.options import Options

    if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
        raise UserError(f"{shown(path)} is an image, but MODEL comes first, such as RUN/best.safetensors")

    if wanted is not None:
        refuse_exported(path, wanted=wanted)
        refuse_engine(path, engine, wanted=wanted)
    by_torch = holds_weights(path) and engine in ("auto", "torch")
    where = str(find_device(device or "auto")) if by_torch else device or "cpu"
    how = Options(where, precision, threads, exact)
    return run_by(path, how, engine=engine, builder=_found(builder))


def _found(builder: str | None) -> Callable[..., Detector] | None:
    if builder is None:
        return None
    from singleshot.detectors.registry import find_builder

    allow_local_imports()
    return find_builder(builder)


def allow_local_imports() -> None:
    """Make `my_lab.models:my_detector` importable from the current folder, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end, so that no file there hides an installed library
