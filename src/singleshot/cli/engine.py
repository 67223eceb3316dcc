"""`--engine`, `--precision` and `--threads`, the same on every verb that runs a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace

from singleshot.cli.parser import whole
from singleshot.engines.options import LONG_NAMES, MOST_THREADS, PRECISIONS

ENGINES = ("auto", "torch", "onnxruntime", "openvino")
"""The names of engines, for the help. Another one is looked up when a model is loaded."""


def add_engine(add: Callable[..., Any], *, exact: bool = False) -> None:
    """Add the flags. `exact`: the verb computes in float32 unless told."""
    auto = "fp32" if exact else "the fastest that finds the same"
    add(
        "--engine",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(ENGINES)} (default: auto, PyTorch for a weights file, else the engine of the file)",
    )
    add(
        "--precision",
        choices=[*PRECISIONS, *LONG_NAMES],
        default="auto",
        help=f"number format of the network (default: {auto}; an int8 file stays int8)",
    )
    add("--threads", type=whole(1, MOST_THREADS), metavar="N", help="threads that compute (default: the engine's own)")


def chosen(options: Namespace) -> dict[str, Any]:
    """The choices as arguments of `load_model`."""
    return {"engine": options.engine, "precision": options.precision, "threads": options.threads}
