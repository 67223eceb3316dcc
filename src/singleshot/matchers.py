"""Which anchor should find which object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.ops.boxes import coverage, pairwise_iou
from singleshot.structures import Anchors, Matched, Targets

LowQuality = Literal["bipartite", "all", "band", "none"]

_LEAST_OVERLAP = 1e-6  # authors' MatchBBox: a pair without overlap is never matched
# Elements of the overlap matrix [B, chunk of G, A] that are made at once: what stays in a processor's cache, and what
# keeps a GPU busy without filling its memory.
_CHUNK = {"cpu": 1 << 17}
_CHUNK_ELSEWHERE = 1 << 25


@dataclass(frozen=True)
class IoUMatcher:
    """Matching by overlap, for a whole batch at once.

    An anchor takes the object that it overlaps most when their IoU is at least `positive`. Other anchors are negatives
    when their best IoU is below `negative`; in between they are not counted. `low_quality` is what is done for objects
    that no anchor overlaps so much:

    - "bipartite" (SSD section 2.2, authors' MatchBBox): before all else, greedily the globally best pair of an object
      and a free anchor, then the next best, until every object has an anchor of its own; ties go to the lower anchor
      index, then the lower object. Of two objects that share a best anchor the one with less overlap so takes its next
      best.
    - "all" (RetinaNet in mmdetection): the anchors that overlap an object most, all of them where several are equal,
      take that object whatever the IoU; of two objects that share such an anchor the later one.
    - "band" (RetinaNet in Detectron): such an anchor counts as positive when its best IoU is at least `negative`, for
      the object that it overlaps most.
    - "none".

    An overlap must exceed 1e-6 to force anything.

    With `ignore_crowd`, an anchor that lies at least half inside a crowd region is neither positive nor negative;
    without it crowd regions are nothing at all. Memory stays bounded whatever the number of objects: the overlaps [B,
    G, A] are made in chunks of G and never kept. Runs under no_grad and outside of compiled graphs; tests once per
    round whether an object is still without an anchor.
    """

    positive: float = 0.5
    negative: float = 0.5
    low_quality: LowQuality = "bipartite"
    ignore_crowd: bool = False

    def __post_init__(self) -> None:
        if self.low_quality not in get_args(LowQuality):
            raise UserError(f"low_quality: expected one of {', '.join(get_args(LowQuality))}, got {self.low_quality!r}")

    @torch.no_grad()
    def __call__(self, anchors: Anchors, targets: Targets) -> Matched:
        """Anchors [A, 4] or [B, A, 4] and Targets -> Matched [B, A]."""
        boxes = anchors.boxes.detach()
        batch, num_anchors = len(targets.labels), boxes.shape[-2]
        objects = (targets.labels >= 0) & ~targets.crowd
        usable = torch.ones(batch, num_anchors, dtype=torch.bool, device=boxes.device)
        if anchors.usable is not None:
            usable = usable & anchors.usable
        if self.ignore_crowd:
            usable = usable & ~_inside_crowd(boxes, targets)
        overlaps = _Overlaps(targets.boxes, objects, boxes, usable)
        best, owner, first, forced = overlaps.best_pairs(ties=self.low_quality in ("all", "band"))
        positive = best >= self.positive
        if self.low_quality == "bipartite":
            forced = _greedy(overlaps, objects, first)
        if self.low_quality == "band":
            positive = positive | ((forced >= 0) & (best >= self.negative))
        else:
            owner = torch.where(forced >= 0, forced, owner)
            positive = positive | (forced >= 0)
        counted = usable & (positive | (best < self.negative))
        if targets.boxes.shape[1] == 0:
            matched_boxes, labels = boxes.expand(batch, -1, -1), torch.zeros_like(owner)
        else:
            found = targets.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
            matched_boxes = torch.where(positive[..., None], found, boxes)
            labels = torch.where(positive, targets.labels.gather(1, owner), 0)
        return Matched(boxes, matched_boxes, labels, positive, counted)


class _Overlaps:
    """IoU of the objects and anchors of a batch, made a few objects at a time.

    What is out of play is made a point: its IoU is 0 with everything, and nothing needs a mask.
    """

    def __init__(self, boxes: Tensor, objects: Tensor, anchors: Tensor, usable: Tensor) -> None:
        self.boxes = boxes.masked_fill(~objects[..., None], 0.0)
        self.anchors = anchors.masked_fill(~usable[..., None], 0.0)
        self.step = _objects_at_once(self.anchors)

    def rows(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The objects `index` [B, n] in parts [B, few], each with its IoU with all anchors [B, few, A]."""
        for part in torch.split(index, self.step, dim=1):
            yield part, pairwise_iou(self.boxes.gather(1, part[..., None].expand(-1, -1, 4)), self.anchors)

    def best_pairs(self, *, ties: bool) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
        """Each anchor's best IoU and its object [B, A] twice, and each object's best IoU and its anchor [B, G] twice.

        Of equals the one with the lower index. Then, with `ties`, the last object that no anchor overlaps more than
        this one, -1 for none: [B, A].
        """
        batch, num_anchors = self.anchors.shape[:2]
        count = self.boxes.shape[1]
        best = self.boxes.new_zeros(batch, num_anchors)
        owner = torch.zeros(batch, num_anchors, dtype=torch.int64, device=best.device)
        champion = torch.full_like(owner, -1)
        if count == 0:
            return best, owner, (best[:, :0], owner[:, :0]), champion
        values, favourites = [], []
        for part, iou in self.rows(torch.arange(count, device=best.device).expand(batch, -1)):
            value, anchor = iou.max(2)  # the first of equals
            values.append(value)
            favourites.append(anchor)
            if ties:
                most = (iou == value[..., None]) & (value > _LEAST_OVERLAP)[..., None]
                champion = torch.maximum(champion, torch.where(most, part[..., None], -1).amax(1))
            value, row = iou.max(1)
            better = value > best
            best = torch.where(better, value, best)
            owner = torch.where(better, part.gather(1, row), owner)
        return best, owner, (torch.cat(values, 1), torch.cat(favourites, 1)), champion

    def best_winning(self, index: Tensor, held: Tensor, holder: Tensor) -> tuple[Tensor, Tensor]:
        """Each object's best IoU with an anchor that prefers it to its holder (else -1), and that anchor: [B, n] twice.

        `held` [B, A] is the IoU that each anchor has now, `holder` [B, A] the object that it has it from.
        """
        values, anchors = [], []
        for part, iou in self.rows(index):
            wins = (iou > held[:, None]) | ((iou == held[:, None]) & (part[..., None] < holder[:, None]))
            value, anchor = iou.masked_fill_(~wins, -1.0).max(2)
            values.append(value)
            anchors.append(anchor)
        return torch.cat(values, 1), torch.cat(anchors, 1)


def _greedy(overlaps: _Overlaps, objects: Tensor, first: tuple[Tensor, Tensor]) -> Tensor:
    """Greedy bipartite matching -> the object that each anchor must find, -1 for none: [B, A].

    Done as deferred acceptance: every object without an anchor asks the best one that prefers it to its present holder,
    and an anchor takes the best that asks. Objects and anchors rank pairs by one order (IoU, then anchor, then object),
    so there is exactly one stable matching, and it is the greedy one: the globally best pair is in it, then the best of
    the rest, and so on. A few rounds are enough, and only objects that wait take part in a round. `first` is what the
    objects ask in the first: their best IoU and its anchor.
    """
    (batch, count), num_anchors = objects.shape, overlaps.anchors.shape[1]
    # One column more than there are anchors takes what is meant for none; it is never read.
    held = overlaps.boxes.new_full((batch, num_anchors + 1), _LEAST_OVERLAP)
    holder = torch.full((batch, num_anchors + 1), count, device=objects.device)
    index = torch.arange(count, device=objects.device).expand_as(objects)
    active, hopeful, (value, anchor) = objects, objects, first
    while True:
        asking = active & (value > _LEAST_OVERLAP)
        hopeful = hopeful.scatter(1, index, hopeful.gather(1, index) & (asking | ~active))
        place = torch.where(asking, anchor, num_anchors)
        held = held.scatter_reduce(1, place, value, "amax")
        taken = torch.where(asking & (value == held.gather(1, place)), place, num_anchors)
        lowest = torch.full_like(holder, count).scatter_reduce(1, taken, index, "amin")
        holder = torch.where(lowest < count, lowest, holder)
        served = torch.zeros(batch, count + 1, dtype=torch.bool, device=objects.device).scatter(1, holder[:, :-1], True)
        waiting = hopeful & ~served[:, :count]
        most = int(waiting.sum(1).max()) if count else 0  # the one test of the round
        if most == 0:
            return torch.where(holder < count, holder, -1)[:, :-1]
        index = waiting.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        active = waiting.gather(1, index)
        value, anchor = overlaps.best_winning(index, held[:, :-1], holder[:, :-1])


def _objects_at_once(anchors: Tensor) -> int:
    """How many objects of each image to compare with the anchors [B, A, 4] at once."""
    return max(1, _CHUNK.get(anchors.device.type, _CHUNK_ELSEWHERE) // (anchors.shape[0] * anchors.shape[1]))


def _inside_crowd(boxes: Tensor, targets: Targets) -> Tensor:
    """Anchors at least half of whose area lies inside one crowd region: [B, A]."""
    batch = len(targets.labels)
    boxes = boxes.expand(batch, -1, -1)
    result = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    step = _objects_at_once(boxes)
    for start in range(0, targets.crowd.shape[1], step):
        share = coverage(boxes, targets.boxes[:, start : start + step])
        result |= ((share >= 0.5) & targets.crowd[:, None, start : start + step]).any(2)
    return result
