"""The targets that a detector gets, and their check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.structures import Targets


def checked_targets(targets: Sequence[Mapping[str, Tensor]], num_classes: int, device: torch.device) -> Targets:
    """The targets of a batch on a device. They are checked where they are: on the CPU this does not wait for the GPU.

    Raises:
        UserError: a target of another form (`check_target`), a label outside of 0..K-1, a box that is not xyxy with
            positive sides. The message names the target and the row.
    """
    for i, target in enumerate(targets):
        check_target(i, target)
    truth = Targets.from_list([dict(target) for target in targets])
    _check_values(truth, torch.tensor([len(target["labels"]) for target in targets]), num_classes)
    return Targets(*(part.to(device, non_blocking=True) for part in (truth.boxes, truth.labels, truth.crowd)))


def check_target(index: int, target: Mapping[str, Tensor]) -> None:
    """Refuse a target that is not boxes [N, 4], labels [N] of whole numbers, and perhaps iscrowd [N]."""
    if not isinstance(target, Mapping) or "boxes" not in target or "labels" not in target:
        came = sorted(target) if isinstance(target, Mapping) else type(target).__name__
        raise UserError(f"target {index}: expected a dict with 'boxes' and 'labels', got {came}")
    parts = {name: target[name] for name in ("boxes", "labels", "iscrowd") if name in target}
    for name, part in parts.items():
        if not isinstance(part, Tensor):
            raise UserError(f"target {index}: expected {name} to be a tensor, got {type(part).__name__}")
    boxes, labels = parts["boxes"], parts["labels"]
    crowd = parts.get("iscrowd", labels)
    fits = labels.ndim == 1 and crowd.shape == labels.shape and boxes.shape == (len(labels), 4)
    if not fits and any(part.numel() for part in parts.values()):  # without boxes any shape is accepted
        shapes = ", ".join(f"{name} {list(part.shape)}" for name, part in parts.items())
        raise UserError(f"target {index}: expected boxes [N, 4] and labels [N] (and iscrowd [N]), got {shapes}")
    if labels.numel() and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise UserError(f"target {index}: expected labels of whole numbers (int64), got {labels.dtype}")


def _check_values(truth: Targets, counts: Tensor, num_classes: int) -> None:
    """Refuse labels and boxes out of range. `counts` [B]: how many rows of each image are not padding."""
    boxes, labels = truth.boxes, truth.labels
    real = torch.arange(labels.shape[1], device=labels.device) < counts.to(labels.device)[:, None]
    wrong = real & ((labels < 0) | (labels >= num_classes))
    sound = (boxes[..., :2] < boxes[..., 2:]).all(-1) & boxes.isfinite().all(-1)
    bad = real & ~sound
    if not bool((wrong | bad).any()):
        return
    if bool(wrong.any()):
        i, row = (int(k) for k in wrong.nonzero()[0])
        raise UserError(
            f"target {i}: label {int(labels[i, row])} is outside 0..{num_classes - 1}; "
            "torchvision counts from 1: subtract 1, or build with num_classes=K+1"
        )
    i, row = (int(k) for k in bad.nonzero()[0])
    raise UserError(
        f"target {i}: boxes must be [N, 4] xyxy with x1 < x2 and y1 < y2, got {boxes[i, row].tolist()} "
        f"(row {row}); xywh boxes? use singleshot.ops.boxes.box_convert"
    )
