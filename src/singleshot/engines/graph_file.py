"""What the files of exported graphs have in common: the spec in their metadata, and the names in their graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from singleshot.engines.engine import Floats, Integers, Run
from singleshot.errors import UserError, short
from singleshot.files import not_a_file
from singleshot.spec import Spec

KEY = "singleshot"
"""The key of the spec, as one JSON text, in the metadata of a file."""

IMAGES, LIMITS = "images", "limits"
"""The inputs of a graph. Only detectors that keep the aspect ratio have the second."""

DETECTIONS = ("boxes", "scores", "labels")
"""The outputs that a run needs; `count` beside them is for other programs."""

_LONGEST = 64 * 2**20


def refuse_no_file(path: Path) -> None:
    """Raise `UserError` for a path that is not a file: it is missing, a folder, or a pipe, which nobody writes to."""
    try:
        what = not_a_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    if what is not None:
        raise UserError(f"{path}: is {what}; expected the file of an exported model")


def spec_of(text: str | None, path: Path, *, title: str, suffix: str) -> Spec:
    """The `Spec` that the metadata of a file holds. Raises `UserError` for a file of another program."""
    if text is None:
        raise UserError(
            f"{path}: a model of another program: it does not say how images are prepared and what its outputs mean; "
            f"expected one that `singleshot export` wrote. Run it with {title} itself"
        )
    try:
        if len(text) > _LONGEST:
            raise ValueError("it is too long")
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: the spec in its metadata is no JSON ({short(str(error))}); export it again") from None
    try:
        return Spec.from_json(held)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def check_graph(spec: Spec, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> None:
    """Raise `UserError` for a graph without the inputs and outputs that its spec stands for."""
    padded = spec.preprocess is None or spec.preprocess.padded
    expected = {IMAGES, LIMITS} if padded else {IMAGES}
    told = " and ".join(sorted(expected))
    if IMAGES not in inputs or not set(inputs) <= expected:
        raise UserError(
            f"{path}: its graph takes {short(', '.join(inputs))}, expected {told}; it was changed: export it again"
        )
    lacking = [name for name in DETECTIONS if name not in outputs] if spec.outputs == "detections" else []
    if lacking:
        raise UserError(f"{path}: its graph does not give {', '.join(lacking)}; it was changed: export it again")


def first_line(error: BaseException) -> str:
    """What an engine says of an error, short enough for a message, without the places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return short((told or lines or [type(error).__name__])[0])


def as_run(
    spec: Spec, path: Path, outputs: Sequence[str], network: Callable[[NDArray[Any], Floats], Sequence[NDArray[Any]]]
) -> Run:
    """The run of a graph from a call that gives its arrays: `DETECTIONS`, or all `outputs` of a network alone."""
    if spec.outputs == "raw":
        from singleshot.engines.raw import completed

        return completed(spec, path, outputs, network)

    def run(images: NDArray[Any], limits: Floats) -> tuple[Floats, Floats, Integers]:
        boxes, scores, labels = network(images, limits)
        return boxes, scores, labels.astype(np.int64, copy=False)

    return run
