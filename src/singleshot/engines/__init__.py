"""Engines run detectors: one file per engine, chosen by the suffix of the model's file, or by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from singleshot.engines.options import Options
from singleshot.errors import UserError, did_you_mean, in_brackets, short
from singleshot.paths import to_path

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from singleshot.detectors.detector import Detector
    from singleshot.engines.engine import Engine
    from singleshot.engines.exported import ExportedDetector

ENGINES = {
    ".safetensors": "singleshot.engines.weights_file",
    ".onnx": "singleshot.engines.onnxruntime",
    ".xml": "singleshot.engines.openvino",
    ".pt2": "singleshot.engines.torch_program",
}
"""The suffix of a model's file, and the module of the engine that opens it."""

NAMES = {
    "torch": ".safetensors",
    "onnxruntime": ".onnx",
    "openvino": ".xml",
}
"""The names of engines, and the suffix of the files that a detector is converted to for each."""

_WEIGHTS = ".safetensors"


def find_engine(path: str | Path) -> Engine:
    """The engine of a file, by its suffix. For a suffix that is not in `ENGINES`, the engine of weights files.

    That engine looks into the file, and reports what it found and what was expected.
    """
    return cast("Engine", importlib.import_module(_module(path)))


def named_engine(name: str) -> Engine:
    """The engine of a name, one of `NAMES`. Raises `UserError` for another name."""
    if name not in NAMES:
        hint = in_brackets(did_you_mean(str(name), NAMES, number=1, show=repr))
        raise UserError(f"engine {short(name)} is not known{hint}; expected one of auto, {', '.join(NAMES)}")
    return cast("Engine", importlib.import_module(ENGINES[NAMES[name]]))


def holds_weights(path: str | Path) -> bool:
    """Whether a file is a weights file by its suffix. A file that no other engine opens counts as one."""
    return _module(path) == ENGINES[_WEIGHTS]


def _module(path: str | Path) -> str:
    return ENGINES.get(to_path(path).suffix.lower(), ENGINES[_WEIGHTS])


@overload
def load(
    path: str | Path,
    *,
    builder: Callable[..., Detector],
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> Detector: ...


# The type depends on the suffix of the file and on the engine, which a type checker does not see.
@overload
def load(
    path: str | Path,
    *,
    builder: Callable[..., Detector] | None = None,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> Any: ...


def load(
    path: str | Path,
    *,
    builder: Callable[..., Detector] | None = None,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> Detector | ExportedDetector:
    """Load a model in eval mode: a `Detector` from a weights file, an `ExportedDetector` from any other.

    Args:
        path: a file with a suffix of `ENGINES`.
        builder: for weights of your own detector, the function to build it with.
        engine: "auto" is PyTorch for a weights file, and for an exported model the engine of its file. With another
            engine a weights file is converted once; the result is kept in the cache (`singleshot.cache`).
        precision: "fp32", "bf16" or "int8"; "auto" is the fastest that this machine has for the file.
        threads: how many compute; None is the engine's own choice. For PyTorch this is the number of the process.
        device: "cpu" or "cuda", or another device that the engine takes.

    Raises:
        UserError: the file is missing, broken or impossible for its engine, or an exported model is given a builder;
            the engine is not installed; the device or the precision is not possible here.
    """
    return run_by(path, Options(str(device), precision, threads), engine=engine, builder=builder)


def run_by(
    path: str | Path, options: Options, *, engine: str = "auto", builder: Callable[..., Detector] | None = None
) -> Detector | ExportedDetector:
    """As `load`, with the options as one value."""
    wanted = None if engine == "auto" else named_engine(engine)
    if holds_weights(path) and (wanted is None or wanted.NAME == "torch"):
        from singleshot.engines import weights_file
        from singleshot.weights import checkpoint

        found: Detector = weights_file.prepared(checkpoint.load(path, builder=builder, device=options.device), options)
        return found
    from singleshot.engines.exported import ExportedDetector

    if wanted is not None and holds_weights(path):
        if options.precision == "int8":
            raise UserError(
                f"{path}: int8 needs images to measure the ranges of values: "
                f"singleshot export {path} --precision int8 --calibrate DATA --out model{wanted.SUFFIX}"
            )
        return _by_another(path, wanted, options, builder)
    own = find_engine(path)
    if wanted is not None and wanted.NAME != own.NAME:
        raise UserError(
            f"{path}: a {own.SUFFIX} file runs with {own.TITLE} (engine {own.NAME!r}), not with {wanted.TITLE}; "
            "leave the engine out, or export the detector for the other engine"
        )
    if builder is not None:
        raise UserError(f"{path}: an exported model is complete and does not take a builder; leave the builder out")
    if not to_path(path).exists():
        raise UserError(f"{path}: no such file; export the model first, or check the path")
    return ExportedDetector(*own.open(Path(path), options), path=str(path))


def _by_another(
    path: str | Path, engine: Engine, options: Options, builder: Callable[..., Detector] | None
) -> ExportedDetector:
    """A weights file, run by an engine that cannot read it."""
    from singleshot.engines.converted import converted
    from singleshot.engines.exported import ExportedDetector
    from singleshot.engines.graph_file import refuse_no_file
    from singleshot.engines.quiet import load_package

    refuse_no_file(to_path(path))
    for package in engine.PACKAGES:
        load_package(package)
    with converted(path, engine, builder) as file:
        spec, run = engine.open(file, options)
    return ExportedDetector(spec, run, path=str(path))


def load_detector(
    path: str | Path, *, wanted: str, builder: Callable[..., Detector] | None = None, device: str | torch.device = "cpu"
) -> Detector:
    """Load a `Detector` with its layers, for features that an exported model lacks; `wanted` names it in the error.

    Raises:
        UserError: as `load`, and for an exported model.
    """
    refuse_exported(path, wanted=wanted)
    from singleshot.weights import checkpoint

    return checkpoint.load(path, builder=builder, device=device)


def refuse_exported(path: str | Path, *, wanted: str) -> None:
    """Raise `UserError` if a file's suffix is that of an exported model, since `wanted` needs the detector itself."""
    if not holds_weights(path):
        raise UserError(
            f"{path}: {wanted} needs the detector itself, and an exported model can only detect; "
            f"give the {_WEIGHTS} file from which it was exported"
        )


def refuse_engine(path: str | Path, engine: str, *, wanted: str) -> None:
    """Raise `UserError` for a weights file that another engine shall run, since `wanted` needs the detector itself."""
    if engine != "auto" and named_engine(engine).NAME != "torch":
        raise UserError(
            f"{path}: {wanted} needs the detector itself, which only the engine 'torch' runs; leave --engine out"
        )
