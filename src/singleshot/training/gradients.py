"""The gradients of a step: N batches give those of one batch with N times the images."""

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
    """Losses, and gradients that are added to the parameters': those of one batch of all the images.

    Each loss is divided by its number (of positives, mostly) in all batches together. So these numbers have to be known
    before the first backward pass, and are counted first (`Detector.counts`): of SSD and RetinaNet by matching alone,
    of RefineDet, whose anchors move, and of a loss with a number of its own by a forward pass more. At any time the
    graph of one batch alone is kept: memory does not grow with their number.

    What a batch decides in itself stays with each of them: the statistics of batch norm, and the size that images of
    different shapes are padded to.

    Args:
        model: the detector, or what wraps it for several processes.
        batches: of this process. Gradients are averaged over the processes with the last one.

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
    """The number that each loss of all the batches is divided by; nothing else changes, nor does it wait for a device.

    The generators go back to where they were: the passes that follow drop out what these have dropped out.
    """
    device = detector.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), norms_not_following(detector):
        parts = [detector.counts(batch.images, batch.targets) for batch in batches]
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}


def _exchange(model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Gradients go from process to process with the last batch of a step only."""
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    return model.no_sync() if wrapped and not last else nullcontext()  # type: ignore[operator]
