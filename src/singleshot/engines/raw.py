"""The rest of a detector behind a graph that holds its network alone (`outputs` "raw"): computed by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from singleshot.errors import UserError
from singleshot.spec import Spec

if TYPE_CHECKING:
    from singleshot.engines.engine import Floats, Integers, Run

ANCHORS, KEEP = "anchors", "keep"
"""Outputs of a raw graph beside what the network predicts: [A, 4] or [B, A, 4], and for RefineDet [B, A]."""


def completed(
    spec: Spec,
    path: Path,
    outputs: Sequence[str],
    network: Callable[[NDArray[Any], Floats], Sequence[NDArray[Any]]],
) -> Run:
    """A run of the whole detector, from one of its network that gives `outputs`.

    Raises `UserError` for a post-processing that is not of this package, or that needs to know the levels of a pyramid,
    which a raw graph does not tell.
    """
    import torch

    from singleshot.postprocess import stored
    from singleshot.postprocess.per_class import PerClassPostprocess
    from singleshot.structures import Anchors

    if spec.postprocess is None:
        raise UserError(f"{path}: holds the network alone, and a post-processing that is not part of this package")
    try:
        postprocess = stored.restore(spec.postprocess)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(postprocess, PerClassPostprocess):
        raise UserError(
            f"{path}: holds the network alone, without the levels of its pyramid, which the post-processing needs; "
            "export it with --outputs detections to run it here"
        )
    if ANCHORS not in outputs:
        raise UserError(f"{path}: its graph does not give anchors; it was changed: export it again")

    def run(images: NDArray[Any], limits: Floats) -> tuple[Floats, Floats, Integers]:
        """The network by its engine, scores, suppression and the rest by PyTorch."""
        told = dict(zip(outputs, network(images, limits), strict=True))
        try:
            with torch.inference_mode():
                parts = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in told.items()}
                boxes, keep = parts.pop(ANCHORS), parts.pop(KEEP, None)
                anchors = Anchors(boxes, (boxes.shape[-2],))
                found = postprocess(parts, anchors, None if keep is None else keep.bool(), torch.from_numpy(limits))
                there = found.scores > 0
                labels = torch.where(there, found.labels, 0)
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            lines = str(error).splitlines() or [""]
            raise UserError(f"{path}: what its network gives does not fit together ({lines[0][:200]})") from error
        return found.boxes.numpy(), found.scores.numpy(), labels.numpy()

    return run
