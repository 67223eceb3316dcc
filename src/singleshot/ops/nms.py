"""Greedy non-maximum suppression: exact, batched, of fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from singleshot.ops.boxes import pairwise_iou

_BLOCK = 1 << 24  # elements of the [rows, N, N] overlap matrix that are held at once
_CHUNK = 256  # boxes that `class_nms_sorted` takes at a time
_TRACED_CHUNK = 1024  # the same in a traced graph, where each chunk is a loop operator of its own


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


def class_nms_sorted(
    boxes: Tensor, labels: Tensor, valid: Tensor, iou_threshold: float, *, enough: int | None = None
) -> Tensor:
    """Survivors of greedy NMS in which only boxes of one class suppress each other; sorted by score, best first.

    `boxes` [R, N, 4], `labels` [R, N], `valid` [R, N] bool -> [R, N] bool, rows standing alone as in `nms_sorted`.
    `enough`: nobody asks for more than the first so many survivors of a row; those after them may be missing.

    Labels are compared, pair by pair. The usual trick, to move the classes apart by an offset and run one NMS, rounds
    coordinates: with 80 classes of 1,333 pixels float32 keeps steps of 1/128 pixel, and an IoU near the threshold falls
    to the other side. Taking a class at a time costs K times the fullest class.

    Boxes are taken in chunks: a chunk loses what the survivors before it suppress, then suppresses within itself. That
    is the greedy order, so the result is exact; the overlaps [N, N] are never held at once; and, where waiting for the
    device is allowed, only survivors are compared, and what comes after `enough` of them is left.
    """
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    count, chunk = valid.shape[1], _TRACED_CHUNK if traced else _CHUNK
    alive = valid[:, :0]
    for start in range(0, count, chunk):
        here = slice(start, min(start + chunk, count))
        own_boxes, own_labels, left = boxes[:, here], labels[:, here], valid[:, here].contiguous()
        if start:
            before_boxes, before_labels, living = boxes[:, :start], labels[:, :start], alive
            if not traced:
                index, living = first_marked(alive, int(alive.sum(1).max()))
                before_boxes = before_boxes.gather(1, index[..., None].expand(-1, -1, 4))
                before_labels = before_labels.gather(1, index)
            over = pairwise_iou(before_boxes, own_boxes) > iou_threshold
            over &= (before_labels[:, :, None] == own_labels[:, None, :]) & living[..., None]
            left = left & ~over.any(1)
        over = (pairwise_iou(own_boxes, own_boxes) > iou_threshold).triu(1)
        rivals = (over & (own_labels[:, :, None] == own_labels[:, None, :])).float()
        alive = torch.cat([alive, _fixed_point_traced(rivals, left) if traced else _fixed_point(rivals, left)], 1)
        if not traced and enough is not None and bool((alive.sum(1) >= enough).all()):
            break
    return torch.nn.functional.pad(alive, (0, count - alive.shape[1]))


def first_marked(marked: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Places of the first `number` marked entries of each row, in order.

    `marked` [R, N] bool -> index [R, number] int64, and [R, number] bool: False where a row has no more (the index is
    then that of some entry that is not marked).
    """
    count = marked.shape[1]
    order = torch.arange(count, 0, -1, device=marked.device)
    found, index = torch.where(marked, order, 0).topk(number)
    return index, found > 0


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
