"""Greedy NMS as one operator of a graph: engines put their own in its place, and PyTorch computes it here."""

from __future__ import annotations

import torch
from torch import Tensor

from singleshot.ops.nms import class_nms_sorted, nms_sorted

OPERATOR = "singleshot::survivors"


@torch.library.custom_op(OPERATOR, mutates_args=())
def survivors(boxes: Tensor, labels: Tensor, valid: Tensor, iou: float, classes: int, most: int) -> Tensor:
    """The survivors of greedy NMS in each row of boxes, which are sorted by score, best first.

    `boxes` [R, N, 4] xyxy, `labels` [R, N] int64, `valid` [R, N] bool -> [R, N] bool. Boxes suppress only boxes of
    their class. With `classes` 1 the labels are not read. Of each row and class only the first `most` survivors are
    needed; later ones may be missing. `ops.nms.nms_sorted` is the exact reference.
    """
    if classes == 1:
        return nms_sorted(boxes, valid, iou)
    return class_nms_sorted(boxes, labels, valid, iou)


@survivors.register_fake
def _(boxes: Tensor, labels: Tensor, valid: Tensor, iou: float, classes: int, most: int) -> Tensor:
    return torch.empty_like(valid)


def survivors_in_loops(boxes: Tensor, labels: Tensor, valid: Tensor, iou: float, classes: int, most: int) -> Tensor:
    """The same with PyTorch's own operators, for a graph that PyTorch alone runs."""
    if classes == 1:
        return nms_sorted(boxes, valid, iou)
    return class_nms_sorted(boxes, labels, valid, iou)
