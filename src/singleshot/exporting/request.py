"""What an export is asked for, checked before anything is loaded or computed. It does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from singleshot.engines import ENGINES, find_engine
from singleshot.engines.options import known_precision
from singleshot.engines.quantise import QUANTISERS, packages_for
from singleshot.engines.quiet import load_package
from singleshot.errors import UserError
from singleshot.exporting import triton
from singleshot.exporting.place import FOLDERS, FORMATS, find_format, find_target


@dataclass(frozen=True)
class Request:
    """What to write, and where to."""

    format: str
    precision: str
    target: Path


def checked(
    out: str | Path,
    *,
    stem: str,
    format: str | None,
    precision: str,
    max_drop: float | None,
    calibrated: bool,
    outputs: str,
) -> Request:
    """The request that these arguments of `export` make. `stem` names the file if `out` is a folder.

    Raises `UserError` for what the arguments alone decide: an unknown or impossible format, precision or number, a
    missing package, a file that exists.
    """
    precision = known_precision(precision)
    if precision == "auto":
        raise UserError("precision must be one of fp32, bf16, int8, got 'auto'")
    format = find_format(format, out)
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UserError(f"max_drop must be from 0 to 100 points of AP, got {max_drop}")
    if max_drop is not None and precision == "fp32":
        raise UserError("max_drop is for bf16 and int8; in fp32 the same objects are found: leave it out")
    target = find_target(out, format=format, stem=stem)
    if format in FOLDERS:
        triton.check(outputs)
    _check_calibration(precision, calibrated)
    _check_packages(FORMATS[format], precision)
    return Request(format, precision, target)


def _check_packages(suffix: str, precision: str) -> None:
    """Raise `UserError`, before anything is computed, for a missing package and an impossible precision."""
    if suffix not in ENGINES:
        raise UserError(f"{suffix} files have no engine here; expected a format of {', '.join(ENGINES)}")
    engine = find_engine(f"model{suffix}")
    if precision == "int8" and suffix not in QUANTISERS:
        raise UserError(f"{engine.TITLE} has no int8 here; expected format onnx, openvino or triton")
    if precision not in engine.PRECISIONS:
        raise UserError(
            f"{engine.TITLE} does not compute in {precision}; expected one of {', '.join(engine.PRECISIONS)}"
        )
    wanted = dict.fromkeys((*engine.PACKAGES, *(packages_for(suffix) if precision == "int8" else ())))
    for package in wanted:
        if package != "torch":
            load_package(package)


def _check_calibration(precision: str, calibrated: bool) -> None:
    if precision == "int8" and not calibrated:
        raise UserError(
            "int8 needs images like those of the training, to see which values occur: give --calibrate DATA (in Python "
            "calibrate=), the dataset of the training, for example; labels are not needed"
        )
    if precision != "int8" and calibrated:
        raise UserError(f"calibrate is for int8, and the precision is {precision}; leave one of them out")
