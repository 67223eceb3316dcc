"""Post-processing with fixed shapes, for graphs that other engines run: the same detections as `Postprocess`.

The classes of this package find out how many candidates there are and then compute no more than that. A graph cannot
wait for such a number. It takes as many candidates as there may be, and its operators have few and small inputs:
ranking first, then everything else for what was ranked. Equal scores keep their order here too: `topk` of an engine
takes the first of equal values, which `torch.topk` does not promise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from singleshot.ops.boxes import box_area, clip_boxes, coordinate_rows
from singleshot.ops.nms import soft_nms
from singleshot.ops.suppression import survivors
from singleshot.ops.voting import near_vote
from singleshot.postprocess.per_class import PerClassPostprocess
from singleshot.postprocess.per_level import PerLevelPostprocess
from singleshot.postprocess.postprocess import Postprocess
from singleshot.structures import Anchors, Detections, Predictions

Suppress = Callable[[Tensor, Tensor, Tensor, float, int, int], Tensor]
"""`singleshot.ops.suppression.survivors`, or the same with other operators."""

_CANDIDATES = 1000  # of each class, if no number is set
_VOTERS, _VOTERS_OF_ALL = 200, 1000  # of a class, and of an image: as in the two classes
_FINITE = torch.finfo(torch.float32).max


def detections(
    postprocess: Postprocess,
    predictions: Predictions,
    anchors: Anchors,
    keep: Tensor | None,
    limits: Tensor,
    suppress: Suppress = survivors,
) -> Detections:
    """What `postprocess` finds, as [B, D] with a D that depends on the sizes of the input only.

    A post-processing of your own is called as it is.
    """
    kind = cast(Any, _KINDS.get(type(postprocess)))
    if kind is None:
        return postprocess(predictions, anchors, keep, limits)
    return cast(Detections, kind(postprocess, predictions, anchors, keep, limits, suppress))


def _per_class(
    post: PerClassPostprocess,
    predictions: Predictions,
    anchors: Anchors,
    keep: Tensor | None,
    limits: Tensor,
    suppress: Suppress,
) -> Detections:
    boxes = post.coder.decode(predictions["box_deltas"], anchors.boxes)  # [B, A, 4]
    sound = _finite(boxes) if keep is None else _finite(boxes) & keep
    if post.clip_first:
        boxes = clip_boxes(boxes, limits[:, :1, None], limits[:, 1:, None])
    scores = post.scores(predictions)  # [B, A, K]
    scores = torch.where((scores > post.threshold) & sound[..., None], scores, 0.0).transpose(1, 2)  # [B, K, A]
    classes, count = scores.shape[1], scores.shape[2]
    limited = [limit for limit in (post.candidates, post.candidates_of_image) if limit is not None]
    number = min(*(limited or [_CANDIDATES]), count)
    best, index = scores.topk(number)  # [B, K, N]
    if post.candidates_of_image is not None:
        every = best.flatten(1)
        kept, place = every.topk(min(post.candidates_of_image, classes * number))
        best = torch.zeros_like(every).scatter(1, place, kept).reshape(best.shape)
    chosen = _rows(boxes, index.flatten(1))  # [B, K * N, 4]
    rows, ranked = chosen.reshape(-1, number, 4), best.reshape(-1, number)  # one row per image and class
    if post.soft is None:
        alive = suppress(rows, torch.zeros_like(ranked).long(), ranked > 0, post.iou, 1, min(number, post.detections))
        after = torch.where(alive, ranked, 0.0)
    else:
        after = soft_nms(rows, ranked, post.soft, post.threshold)
    final, order = after.reshape(-1, classes * number).topk(min(post.detections, classes * number))
    found, labels = _rows(chosen, order), order // number
    if post.vote is not None:
        voters = min(number, _VOTERS)
        own = torch.where(order % number < voters, 0.0, best.flatten(1).gather(1, order))
        near = chosen.reshape(-1, classes, number, 4)[:, :, :voters].flatten(2)  # [B, K, V * 4]
        near = _rows(near, labels).reshape(-1, order.shape[1], voters, 4)
        found = near_vote(found, own, coordinate_rows(near), _rows(best[..., :voters], labels), post.vote)
    return Detections(found, final, labels)


def _per_level(
    post: PerLevelPostprocess,
    predictions: Predictions,
    anchors: Anchors,
    keep: Tensor | None,
    limits: Tensor,
    suppress: Suppress,
) -> Detections:
    top = post.scores(predictions).amax(-1)  # [B, A]
    top = torch.where(top > post.threshold if keep is None else (top > post.threshold) & keep, top, 0.0)
    scores, indices, first, classes = [], [], 0, 1
    for count in anchors.counts:
        level = top.narrow(1, first, count)
        if isinstance(count, int):
            number = min(post.candidates, count)
        else:  # the size of the input is free: places without an anchor are added, so that there are always enough
            number = post.candidates
            level = torch.cat([level, level.new_zeros(level.shape[0], number)], 1)
        place = level.topk(number)[1]
        # Sorted back to the order of the anchors, so that places in [n, K] follow the order of the pairs.
        place = place.sort(1).values
        index = (place if isinstance(count, int) else torch.minimum(place, torch.arange(count)[-1:])) + first
        near = {name: _rows(values, index) for name, values in predictions.items()}
        sound = level.gather(1, place) > 0
        for values in near.values():
            sound = sound & _finite(values)
        own = post.scores(near)  # [B, n, K]
        classes = own.shape[-1]
        pairs = torch.where((own > post.threshold) & sound[..., None], own, 0.0).flatten(1)
        best, pair = pairs.topk(min(post.candidates, pairs.shape[1]))
        scores.append(best)
        indices.append(torch.stack([index.gather(1, pair // classes), pair % classes], -1))
        first = first + count
    every, pairs = torch.cat(scores, 1), torch.cat(indices, 1)
    best, order = every.topk(every.shape[1])
    index, labels = _rows(pairs, order).unbind(-1)
    base = anchors.boxes[index] if anchors.boxes.ndim == 2 else _rows(anchors.boxes, index)
    boxes = post.coder.decode(_rows(predictions["box_deltas"], index), base)  # [B, N, 4]
    boxes = clip_boxes(boxes, limits[:, :1, None], limits[:, 1:, None])
    valid = (best > 0) & (box_area(boxes) > 0)  # a box in the padding is not a detection
    alive = suppress(boxes, labels, valid, post.iou, classes, post.detections)
    final, chosen = torch.where(alive, best, 0.0).topk(min(post.detections, best.shape[1]))
    kept, found = _rows(boxes, chosen), labels.gather(1, chosen)
    if post.vote is not None:
        most = min(best.shape[1], _VOTERS_OF_ALL)
        same = (found[..., None] == labels[:, None, :most]) & valid[:, None, :most]
        voters = torch.where(same, best[:, None, :most], 0.0)  # [B, D, N]
        own = torch.where(chosen < most, 0.0, final)
        kept = near_vote(kept, own, coordinate_rows(boxes[:, None, :most]), voters, post.vote)
    return Detections(kept, final, found)


_KINDS = {PerClassPostprocess: _per_class, PerLevelPostprocess: _per_level}


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of [B, A, n] by index [B, N] -> [B, N, n]. Whole rows are copied: `gather` would take number by number."""
    images, count, width = values.shape
    first = torch.arange(images, device=index.device)[:, None] * count
    every = values.reshape(-1, width).index_select(0, (index + first).flatten())
    return every.reshape(-1, index.shape[1], width)


def _finite(values: Tensor) -> Tensor:
    """Where all numbers of [..., n] are finite: NaN fails every comparison."""
    return (values.abs() <= _FINITE).all(-1)
