"""Box voting: merges the boxes from several views of an image (plain or soft), or those that suppression removes.

RefineDet's authors merge views in this way in their multi-scale test (their "+" figures; the paper does not say how).
Their IoU counts sides with "+1"; here, as everywhere in this project, it does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from singleshot.ops.boxes import aligned_iou, coordinate_rows, pairwise_iou, rows_iou
from singleshot.ops.nms import first_marked, survivors

_CHUNK = 128  # boxes of each class that are compared at once


def box_vote(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float = 0.45) -> tuple[Tensor, Tensor, Tensor]:
    """Box voting of one image, as RefineDet's authors do for VOC: each cluster of boxes of one class becomes one box.

    A cluster is the best box of a class, with all remaining boxes of the class that overlap it with an IoU of at least
    `iou`. The next cluster starts from the best box that is left, and so on. A cluster becomes one box: the mean of its
    boxes' corners, weighted by their scores. Its score is the highest of them. A box that is alone stays unchanged.

    `boxes` [N, 4] xyxy, `scores` [N], `labels` [N] -> the same of the M clusters, best first. The order of the boxes
    does not matter. Memory is a few times N, because only a chunk of a class at a time is compared with its clusters.
    """
    boxes, scores, labels = _ordered(boxes, scores, labels)
    leader = _leaders(boxes, labels, iou)
    first = leader == torch.arange(len(leader), device=leader.device)
    return _best_first(_voted(boxes, scores, leader)[first], scores[first], labels[first])


def soft_box_vote(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou: float = 0.45, threshold: float = 0.05
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft box voting of one image, as RefineDet's authors do for COCO: `box_vote`, but the clusters' boxes are kept.

    A cluster gives its voted box, and each of its boxes also stays where it is. The score of such a box is multiplied
    by (1 - IoU), with its IoU with the cluster's best box. Boxes that then have less than `threshold` are removed. So
    is the best box itself (its IoU is 1). The default threshold is that of the authors' ResNet-101 of 512. A box that
    is alone stays unchanged, whatever its score.

    `boxes` [N, 4] xyxy, `scores` [N], `labels` [N] -> the same of the remaining boxes, best first.
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

    Args:
        kept: [..., D, 4] boxes.
        own: [..., D] the score of a kept box that is not among the candidates, else 0.
        candidates: [4, ..., D or 1, N] boxes as `coordinate_rows`.
        scores: [..., D, N], 0 for a candidate that takes no part.
        spread: how fast the weight falls with the distance. A candidate of IoU 0.8 has the weight 0.45 at a spread of
            0.05, and 0.14 at the paper's 0.02. A candidate of IoU 0 has no weight.

    Returns:
        [..., D, 4]: the mean of the corners, weighted by score * exp(-(1 - IoU)^2 / spread). A box stays unchanged if
        all weights are 0.
    """
    rows = coordinate_rows(kept)  # [4, ..., D]
    iou = rows_iou(rows[..., None], candidates)  # [..., D, N]
    weight = torch.where(iou > 0, iou.neg().add_(1).square_().div_(-spread).exp_(), 0.0).mul_(scores)
    total = weight.sum(-1) + own
    # One coordinate after the other: these are sums in 32 bits, while matrix products may use fewer bits.
    mean = [((weight * sides).sum(-1) + own * row) / total for row, sides in zip(rows, candidates, strict=True)]
    return torch.where(total[..., None] > 0, torch.stack(mean, -1), kept)


def _ordered(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort by label, then best first, then by coordinates, so that the order of the input does not matter."""
    order = torch.arange(len(boxes), device=boxes.device)
    for key in (*boxes.unbind(1), -scores, labels):
        order = order[key[order].argsort(stable=True)]
    return boxes[order], scores[order], labels[order]


def _best_first(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = scores.argsort(descending=True, stable=True)
    return boxes[order], scores[order], labels[order]


def _leaders(boxes: Tensor, labels: Tensor, iou: float) -> Tensor:
    """The index of the best box of each box's cluster [N]. The boxes must be in the order of `_ordered`."""
    counts = torch.unique_consecutive(labels, return_counts=True)[1]
    # Classes become rows, the fullest first. So the classes with boxes in a chunk of columns are always the first rows.
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
    """The same for a chunk of each class: indices [R, C], and the leaders before them [R, M] -> [R, C].

    Leaders are the survivors of greedy NMS. A box belongs to the first leader that it overlaps enough. A chunk is
    compared with the leaders before it and with itself; all boxes are never compared with all.
    """
    chunk = boxes[place]
    reached = (pairwise_iou(boxes[leaders], chunk) >= iou) & living[..., None]  # [R, M, C]
    free = valid & ~reached.any(1)
    near = (pairwise_iou(chunk, chunk) >= iou).triu(1)  # [R, C, C], the row is the better box
    own = survivors(near.float(), free)
    # Leaders of the chunk take themselves (also boxes without area), and boxes that no leader before the chunk took.
    near = (near & own[..., None] & free[:, None]) | torch.diag_embed(own)
    reached, candidates = torch.cat([reached, near], 1), torch.cat([leaders, place], 1)
    order = torch.arange(reached.shape[1], dtype=torch.int32, device=boxes.device)[:, None]
    first = torch.where(reached, order, reached.shape[1] - 1).amin(1)  # the best leader; much faster than argmax
    return candidates.gather(1, first.long())


def _voted(boxes: Tensor, scores: Tensor, leader: Tensor) -> Tensor:
    """The mean of the corners of each leader's cluster, weighted by score: [N, 4]. Other boxes stay unchanged."""
    weight = scores.double()
    total = torch.zeros_like(weight).index_add_(0, leader, weight)
    corners = torch.zeros_like(boxes, dtype=torch.float64).index_add_(0, leader, boxes.double() * weight[:, None])
    several = (leader.bincount(minlength=len(leader)) > 1) & (total > 0)
    return torch.where(several[:, None], (corners / total[:, None]).to(boxes.dtype), boxes)
