"""Which anchor should find which object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from singleshot.ops.boxes import coverage, pairwise_iou
from singleshot.structures import Anchors, Matched, Targets

_LEAST_OVERLAP = 1e-6  # authors' MatchBBox: a pair without overlap is never matched
_CHUNK = 1 << 25  # elements of an overlap matrix [B, chunk of G, A] that are held at once


@dataclass(frozen=True)
class IoUMatcher:
    """SSD's matching (paper section 2.2, authors' MatchBBox), for a whole batch at once.

    1. If `bipartite`, greedily the globally best pair of an object and a free anchor, then the next best, until every object
       has an anchor of its own; overlap must exceed 1e-6; ties go to the lower anchor index, then the lower object. Of two
       objects that share a best anchor the one with less overlap so takes its next best.
    2. Every other anchor takes the object that it overlaps most when their IoU is at least `positive`.
    An unmatched anchor is a negative when its best IoU is below `negative`; in between it is not counted.

    With `ignore_crowd`, an anchor that lies at least half inside a crowd region is neither positive nor negative; without it
    crowd regions are nothing at all. Memory stays bounded whatever the number of objects: the overlaps [B, G, A] are made in
    chunks of G. Runs under no_grad and outside of compiled graphs; tests once per round whether a pair is left.
    """

    positive: float = 0.5
    negative: float = 0.5
    bipartite: bool = True
    ignore_crowd: bool = False

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
        overlaps = _Overlaps(targets.boxes, objects, boxes.expand(batch, -1, -1), usable)
        best, owner = overlaps.best_object(objects)
        positive = best >= self.positive
        if self.bipartite:
            champion = _greedy(overlaps, objects, usable)
            owner = torch.where(champion >= 0, champion, owner)
            positive = positive | (champion >= 0)
        counted = usable & (positive | (best < self.negative))
        if targets.boxes.shape[1] == 0:
            matched_boxes, labels = boxes.expand(batch, -1, -1), torch.zeros_like(owner)
        else:
            found = targets.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
            matched_boxes = torch.where(positive[..., None], found, boxes)
            labels = torch.where(positive, targets.labels.gather(1, owner), 0)
        return Matched(boxes, matched_boxes, labels, positive, counted)


class _Overlaps:
    """IoU of the objects and anchors of a batch, -1 where one of them is out of play; whole if it fits, else in chunks of G."""

    def __init__(self, boxes: Tensor, objects: Tensor, anchors: Tensor, usable: Tensor) -> None:
        self.boxes, self.objects, self.anchors, self.usable = boxes, objects, anchors, usable
        batch, num_objects = objects.shape
        self.step = max(1, _CHUNK // max(1, batch * anchors.shape[1]))
        self.whole = self._make(0, num_objects) if 0 < num_objects <= self.step else None

    def _make(self, start: int, stop: int) -> Tensor:
        iou = pairwise_iou(self.boxes[:, start:stop], self.anchors)
        # In place: an overlap matrix is by far the largest tensor of a training step.
        return iou.masked_fill_(~self.objects[:, start:stop, None], -1.0).masked_fill_(~self.usable[:, None], -1.0)

    def chunks(self) -> list[tuple[int, int]]:
        count = self.objects.shape[1]
        return [(i, min(i + self.step, count)) for i in range(0, count, self.step)]

    def chunk(self, start: int, stop: int) -> Tensor:
        return self.whole if self.whole is not None else self._make(start, stop)

    def best_object(self, objects: Tensor, best_anchor: Tensor | None = None, free: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Best IoU of each anchor over `objects` [B, G] and its object: [B, A], [B, A]; -1 and 0 where there is none.

        With `free` [B, A] only free anchors play, and `best_anchor` [B, G] is filled with each object's best free anchor
        (-1 where the overlap is at most 1e-6).
        """
        batch, num_anchors = self.usable.shape
        best = torch.full((batch, num_anchors), -1.0, device=self.boxes.device)
        owner = torch.zeros(batch, num_anchors, dtype=torch.int64, device=self.boxes.device)
        for start, stop in self.chunks():
            iou = self.chunk(start, stop)
            if free is not None and best_anchor is not None:
                playing = objects[:, start:stop, None] & free[:, None]
                iou = torch.where(playing, iou, -1.0)
                value, anchor = iou.max(2)
                best_anchor[:, start:stop] = torch.where(value > _LEAST_OVERLAP, anchor, -1)
            value, index = iou.max(1)  # the first of equals: the lower object
            better = value > best
            best = torch.where(better, value, best)
            owner = torch.where(better, index + start, owner)
        return best, owner


def _greedy(overlaps: _Overlaps, objects: Tensor, usable: Tensor) -> Tensor:
    """Greedy bipartite matching -> the object that each anchor must find, -1 for none: [B, A].

    Done as rounds of mutual best pairs: a pair that is best for both of its members is chosen by the greedy order whatever
    happens elsewhere, so all such pairs of a round may be fixed at once, and the globally best pair is always among them.
    """
    batch, num_anchors = usable.shape
    champion = torch.full((batch, num_anchors + 1), -1, dtype=torch.int64, device=objects.device)
    index = torch.arange(objects.shape[1], device=objects.device).expand_as(objects)
    waiting, free = objects, usable
    while bool(waiting.any()):  # the one test of the round
        best_anchor = torch.full_like(index, -1)
        _, owner = overlaps.best_object(waiting, best_anchor, free)
        possible = waiting & (best_anchor >= 0)
        mutual = possible & (owner.gather(1, best_anchor.clamp(min=0)) == index)
        # Objects outside of a mutual pair write to the extra column, which is dropped.
        champion.scatter_(1, torch.where(mutual, best_anchor, num_anchors), index)
        champion[:, num_anchors] = -1
        waiting = possible & ~mutual
        free = usable & (champion[:, :-1] < 0)
    return champion[:, :-1]


def _inside_crowd(boxes: Tensor, targets: Targets) -> Tensor:
    """Anchors at least half of whose area lies inside one crowd region: [B, A]."""
    batch = len(targets.labels)
    result = torch.zeros(batch, boxes.shape[-2], dtype=torch.bool, device=boxes.device)
    step = max(1, _CHUNK // max(1, batch * boxes.shape[-2] * 2))
    for start in range(0, targets.crowd.shape[1], step):
        share = coverage(boxes.expand(batch, -1, -1), targets.boxes[:, start : start + step])
        result |= ((share >= 0.5) & targets.crowd[:, None, start : start + step]).any(2)
    return result
