"""Box voting: of the boxes that several views of one image gave, plain and soft, and of those that suppression removes.

RefineDet's authors merge views so in their multi-scale test (their "+" figures; the paper does not say how). Their IoU
counts sides with "+1"; here, as everywhere in this project, it does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from singleshot.ops.boxes import aligned_iou, coordinate_rows, pairwise_iou, rows_iou
from singleshot.ops.nms import first_marked, survivors

_CHUNK = 128  # boxes of each class that are compared at a time


def box_vote(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float = 0.45) -> tuple[Tensor, Tensor, Tensor]:
    """Box voting of one image, as RefineDet's authors do for VOC: clusters of boxes of one class become one box each.

    The best box of a class, and all boxes of the class that are left and overlap it with an IoU of at least `iou`, are
    a cluster; then the best of those left, and so on. A cluster becomes the mean of its boxes' corners, weighted by
    their scores, with its highest score; a box that is alone stays as it is.

    `boxes` [N, 4] xyxy, `scores` [N], `labels` [N] -> the same of the M clusters, best first. The order of the boxes
    does not matter. Memory is a few times N; on the way a chunk of a class is compared with the class's clusters.
    """
    boxes, scores, labels = _ordered(boxes, scores, labels)
    leader = _leaders(boxes, labels, iou)
    first = leader == torch.arange(len(leader), device=leader.device)
    return _best_first(_voted(boxes, scores, leader)[first], scores[first], labels[first])


def soft_box_vote(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou: float = 0.45, threshold: float = 0.05
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft box voting of one image, as RefineDet's authors do for COCO: `box_vote`, with the clusters' boxes kept.

    Beside its voted box, every box of a cluster stays where it is, with (1 - IoU) of its score, the IoU being that with
    the cluster's best box; those that then have less than `threshold` go, as does the best box itself (its IoU is 1).
    The default is what the authors' ResNet-101 of 512 has. A box that is alone stays as it is, whatever its score.

    `boxes` [N, 4] xyxy, `scores` [N], `labels` [N] -> the same of what stays, best first.
    """
    boxes, scores, labels = _ordered(boxes, scores, labels)
    leader = _leaders(boxes, labels, iou)
    first = leader == torch.arange(len(leader), device=leader.device)
    softer = scores * (1 - aligned_iou(boxes[leader], boxes))
    stays = ~first & (softer >= threshold) & (softer > 0)
    return _best_first(
        torch.cat([_voted(boxes, scores, leader)[first], boxes[stays]]),
        torch.cat([scores[first], softer[stays]]),
        torch.cat([labels[first], labels[stays]]),
    )


def near_vote(kept: Tensor, own: Tensor, candidates: Tensor, scores: Tensor, spread: float) -> Tensor:
    """Move each box that suppression kept to the mean of all candidates near it: variance voting.

    He et al., 2019, arXiv 1809.08545, section 3.3, with the candidate's score in place of the variance, which only
    their network predicts.

    `kept` [..., D, 4] and `own` [..., D], the score of those that are not among the candidates, else 0; `candidates`
    [4, ..., D or 1, N], their `coordinate_rows`, and `scores` [..., D, N], 0 where a candidate has no part
    -> [..., D, 4]: the mean of the corners, weighted by score * exp(-(1 - IoU)^2 / `spread`). A candidate of IoU 0.8
    counts 0.45 times at a spread of 0.05, 0.14 times at the paper's 0.02; one of IoU 0 does not. Without weights
    the box stays as it is.
    """
    rows = coordinate_rows(kept)  # [4, ..., D]
    iou = rows_iou(rows[..., None], candidates)  # [..., D, N]
    weight = torch.where(iou > 0, iou.neg().add_(1).square_().div_(-spread).exp_(), 0.0).mul_(scores)
    total = weight.sum(-1) + own
    # One corner after the other: sums in 32 bits, also where matrix products are made of fewer.
    mean = [((weight * sides).sum(-1) + own * row) / total for row, sides in zip(rows, candidates, strict=True)]
    return torch.where(total[..., None] > 0, torch.stack(mean, -1), kept)


def _ordered(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By label, then best first, and equal scores by the boxes' numbers: nothing hangs on the order of the input."""
    order = torch.arange(len(boxes), device=boxes.device)
    for key in (*boxes.unbind(1), -scores, labels):
        order = order[key[order].argsort(stable=True)]
    return boxes[order], scores[order], labels[order]


def _best_first(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = scores.argsort(descending=True, stable=True)
    return boxes[order], scores[order], labels[order]


def _leaders(boxes: Tensor, labels: Tensor, iou: float) -> Tensor:
    """The place of the best box of each box's cluster [N]; boxes are ordered as `_ordered` does."""
    counts = torch.unique_consecutive(labels, return_counts=True)[1]
    # Classes become rows, the fullest first, so that those with boxes in a chunk of columns are always the first ones.
    sizes, order = counts.sort(descending=True, stable=True)
    starts = (counts.cumsum(0) - counts)[order]
    found = torch.arange(len(boxes), device=boxes.device)
    leaders, living = found.new_zeros(len(sizes), 0), found.new_zeros(len(sizes), 0, dtype=torch.bool)
    most = sizes.tolist()
    for start in range(0, most[0] if most else 0, _CHUNK):
        rows = sum(size > start for size in most)
        column = torch.arange(start, min(start + _CHUNK, most[0]), device=boxes.device)
        valid = column < sizes[:rows, None]
        place = (starts[:rows, None] + column).clamp(max=len(boxes) - 1)  # [R, C]
        leader = _leaders_of_chunk(boxes, place, valid, leaders[:rows], living[:rows], iou)
        found[place[valid]] = leader[valid]
        own = valid & (leader == place)
        index, new = first_marked(own, int(own.sum(1).max()))
        leaders = torch.cat([leaders[:rows], place.gather(1, index)], 1)
        living = torch.cat([living[:rows], new], 1)
    return found


def _leaders_of_chunk(
    boxes: Tensor, place: Tensor, valid: Tensor, leaders: Tensor, living: Tensor, iou: float
) -> Tensor:
    """The same for a chunk of each class: places [R, C] and, before them, leaders [R, M] -> [R, C].

    Leaders are what greedy NMS leaves, and a box belongs to the first of them that it reaches. Chunks are compared with
    the leaders before them and with themselves, never all boxes with all.
    """
    chunk = boxes[place]
    reached = (pairwise_iou(boxes[leaders], chunk) >= iou) & living[..., None]  # [R, M, C]
    free = valid & ~reached.any(1)
    near = (pairwise_iou(chunk, chunk) >= iou).triu(1)  # [R, C, C], the better one's row
    own = survivors(near.float(), free)
    # The chunk's leaders reach themselves, also without area, and those that no leader before the chunk took.
    near = (near & own[..., None] & free[:, None]) | torch.diag_embed(own)
    reached, candidates = torch.cat([reached, near], 1), torch.cat([leaders, place], 1)
    order = torch.arange(reached.shape[1], dtype=torch.int32, device=boxes.device)[:, None]
    first = torch.where(reached, order, reached.shape[1] - 1).amin(1)  # the best; much faster than argmax
    return candidates.gather(1, first.long())


def _voted(boxes: Tensor, scores: Tensor, leader: Tensor) -> Tensor:
    """The mean of the corners of each leader's cluster, weighted by score, [N, 4]; other boxes stay as they are."""
    weight = scores.double()
    total = torch.zeros_like(weight).index_add_(0, leader, weight)
    corners = torch.zeros_like(boxes, dtype=torch.float64).index_add_(0, leader, boxes.double() * weight[:, None])
    several = (leader.bincount(minlength=len(leader)) > 1) & (total > 0)
    return torch.where(several[:, None], (corners / total[:, None]).to(boxes.dtype), boxes)
