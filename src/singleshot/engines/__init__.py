"""What runs a detector: one file per engine, found by the ending of the model's file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from singleshot.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from singleshot.detectors.detector import Detector
    from singleshot.engines.engine import Engine
    from singleshot.engines.exported import ExportedDetector

ENGINES = {
    ".safetensors": "singleshot.engines.weights_file",
}
"""The ending of a model's file, and the module of the engine that opens it."""

_WEIGHTS = ".safetensors"


def find_engine(path: str | Path) -> Engine:
    """The engine of a file, by its ending; for an ending that is not in `ENGINES`, the one of weights files.

    That one looks into the file, and says what it found there and what was expected.
    """
    return cast("Engine", importlib.import_module(_module(path)))


def holds_weights(path: str | Path) -> bool:
    """Whether a file is a weights file by its ending: what no other engine opens counts as one."""
    return _module(path) == ENGINES[_WEIGHTS]


def _module(path: str | Path) -> str:
    return ENGINES.get(Path(path).suffix.lower(), ENGINES[_WEIGHTS])


@overload
def load(path: str | Path, *, builder: Callable[..., Detector], device: str | torch.device = "cpu") -> Detector: ...


# What it is depends on the ending of the file, which a type checker does not see.
@overload
def load(path: str | Path, *, builder: None = None, device: str | torch.device = "cpu") -> Any: ...


@overload
def load(path: str | Path, *, builder: Callable[..., Detector] | None, device: str | torch.device = "cpu") -> Any: ...


def load(
    path: str | Path, *, builder: Callable[..., Detector] | None = None, device: str | torch.device = "cpu"
) -> Detector | ExportedDetector:
    """A model from its file: a `Detector` from weights, an `ExportedDetector` from everything else. In eval mode.

    Args:
        path: a file with an ending of `ENGINES`.
        builder: for weights of a detector of your own, the function to build it with.
        device: "cpu" or "cuda", or what else the engine takes.

    Raises:
        UserError: a file that is missing or broken, that its engine cannot open, or a builder for an exported model.
    """
    if holds_weights(path):
        from singleshot.weights import checkpoint

        return checkpoint.load(path, builder=builder, device=device)
    from singleshot.engines.exported import ExportedDetector

    if builder is not None:
        raise UserError(f"{path}: an exported model is complete and takes no builder; leave the builder out")
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; export the model first, or check the path")
    return ExportedDetector(*find_engine(path).open(Path(path), str(device)), path=str(path))


def load_detector(
    path: str | Path, *, wanted: str, builder: Callable[..., Detector] | None = None, device: str | torch.device = "cpu"
) -> Detector:
    """A `Detector` with its layers, for what an exported model cannot do: `wanted` says what, in the error.

    Raises:
        UserError: as `load`, and for an exported model.
    """
    refuse_exported(path, wanted=wanted)
    from singleshot.weights import checkpoint

    return checkpoint.load(path, builder=builder, device=device)


def refuse_exported(path: str | Path, *, wanted: str) -> None:
    """Raise `UserError` for a file that is an exported model by its ending: `wanted` needs the detector itself."""
    if not holds_weights(path):
        raise UserError(
            f"{path}: {wanted} needs the detector itself, and an exported model can only detect; "
            f"give the {_WEIGHTS} file that it was made from"
        )
