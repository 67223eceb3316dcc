"""The gradients of a step: N batches give the same gradients as one batch with N times the images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from singleshot.data.loader import TrainBatch
from singleshot.detectors.detector import Detector
from singleshot.eval_mode import norms_not_following


def backward(model: nn.Module, detector: Detector, batches: Sequence[TrainBatch]) -> dict[str, Tensor]:
    """Compute the losses, and add gradients to the parameters as if all images were one batch.

    Each loss is divided by its count (mostly the number of positives) over all batches together. These counts must be
    known before the first backward pass, so they are computed first (`Detector.counts`). For SSD and RetinaNet matching
    is enough. One more forward pass is needed for RefineDet, whose anchors move, and for a loss that brings its own
    count. Only the graph of one batch is kept at a time: memory does not grow with the number of batches.

    Two things still depend on the single batch: the statistics of batch norm, and the size that images of different
    shapes are padded to.

    Args:
        model: the detector, or its wrapper for several processes.
        batches: the batches of this process. The last one averages the gradients over the processes.

    Returns:
        The losses of this process by name, without a graph.
    """
    counts = sum_of_counts(detector, batches) if len(batches) > 1 else None
    losses: dict[str, Tensor] = {}
    for batch in batches:
        with _exchange(model, last=batch is batches[-1]):
            given = {} if counts is None else {"counts": counts}
            terms: dict[str, Tensor] = model(batch.images, batch.targets, **given)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        for name, value in terms.items():
            losses[name] = losses[name] + value.detach() if name in losses else value.detach()
    return losses


def sum_of_counts(detector: Detector, batches: Sequence[TrainBatch]) -> dict[str, Tensor]:
    """The count that each loss is divided by, summed over all batches. Changes nothing else. No host sync.

    The random generators are restored afterwards, so the training passes draw the same dropout as these passes.
    """
    device = detector.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), norms_not_following(detector):
        parts = [detector.counts(batch.images, batch.targets) for batch in batches]
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}


def _exchange(model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Processes exchange gradients only with the last batch of a step."""
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    return model.no_sync() if wrapped and not last else nullcontext()  # type: ignore[operator]
