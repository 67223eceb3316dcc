"""Greedy non-maximum suppression: exact, batched, of fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from singleshot.ops.boxes import pairwise_iou

_BLOCK = 1 << 24  # elements of the [rows, N, N] overlap matrix that are held at once


def nms_sorted(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Survivors of greedy NMS among boxes that are sorted by score, best first.

    `boxes` [R, N, 4], `valid` [R, N] bool -> [R, N] bool. Each row R (an image, or one class of one image) stands
    alone. A box is suppressed by a better survivor when their IoU is greater than the threshold (IoU equal to it
    survives), as in the authors' code (reference: Caffe's ApplyNMSFast).

    The greedy result is the fixed point of `alive = valid and not any(rival and alive)`: after n rounds at least the
    first n boxes are final, and the rounds stop when nothing changes, so the result is exact; typically 3-6 rounds are
    enough.
    """
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return _fixed_point_traced(_rivals(boxes, iou_threshold), valid)
    rows, count = valid.shape
    step = max(1, _BLOCK // max(1, count * count))
    blocks = [
        _fixed_point(_rivals(boxes[i : i + step], iou_threshold), valid[i : i + step]) for i in range(0, rows, step)
    ]
    return torch.cat(blocks) if blocks else valid.clone()


def _rivals(boxes: Tensor, iou_threshold: float) -> Tensor:
    """[R, N, N] float, 1 where the box of the row (better) suppresses the box of the column if it lives."""
    return (pairwise_iou(boxes, boxes) > iou_threshold).triu(1).float()


def _round(rivals: Tensor, valid: Tensor, alive: Tensor) -> Tensor:
    # A matrix product counts the living rivals of each box; it is the fastest batched "any" on every device.
    return valid & (torch.bmm(alive.float()[:, None], rivals)[:, 0] == 0)


def _fixed_point(rivals: Tensor, valid: Tensor) -> Tensor:
    alive = valid
    while True:
        after = _round(rivals, valid, alive)
        if torch.equal(after, alive):
            return after
        alive = after


def _fixed_point_traced(rivals: Tensor, valid: Tensor) -> Tensor:
    """The same loop as a graph operator, so that `torch.export` and `torch.compile` keep it without a break."""

    def changed(alive: Tensor, before: Tensor, rivals: Tensor, valid: Tensor) -> Tensor:
        return (alive != before).any()

    def step(alive: Tensor, before: Tensor, rivals: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _round(rivals, valid, alive), alive.clone(), rivals.clone(), valid.clone()

    first = _round(rivals, valid, valid)
    result: tuple[Tensor, ...] = while_loop(changed, step, (first, valid.clone(), rivals, valid))  # type: ignore[no-untyped-call]
    return result[0]


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Per-class greedy NMS of one image: boxes [N, 4], scores [N], labels [N] -> indices kept, best first.

    Ties in score keep their order. The ragged form, for use outside of a network; inside, use `nms_sorted`.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes, sorted_labels = boxes[order], labels[order]
    rivals = (pairwise_iou(sorted_boxes, sorted_boxes) > iou_threshold).triu(1)
    rivals &= sorted_labels[:, None] == sorted_labels[None, :]
    valid = torch.ones(1, len(boxes), dtype=torch.bool, device=boxes.device)
    return order[_fixed_point(rivals[None].float(), valid)[0]]
