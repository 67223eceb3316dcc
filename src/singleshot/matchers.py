"""Matching: which anchor should find which object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.near_matches import LEAST_OVERLAP, NearMatches, by_place, inside_crowd
from singleshot.ops.boxes import coverage, pairwise_iou
from singleshot.structures import Anchors, Matched, Targets

LowQuality = Literal["bipartite", "all", "band", "none"]

# Elements of the overlap matrix [B, chunk of G, A] that are computed at once: few enough for a processor's cache, and
# enough to keep a GPU busy without filling its memory.
_CHUNK = {"cpu": 1 << 17}
_CHUNK_ELSEWHERE = 1 << 25


@dataclass(frozen=True)
class IoUMatcher:
    """Matching by overlap, for a whole batch at once.

    An anchor is positive if its IoU with the object that it overlaps most is at least `positive`. Other anchors are
    negative if their best IoU is below `negative`; in between they do not count. `low_quality` says what happens with
    objects that no anchor overlaps by `positive`:

    - "bipartite" (SSD section 2.2, authors' MatchBBox): first of all, every object gets an anchor of its own. The best
      pair of an object and a free anchor in the whole image is matched, then the next best, and so on. Ties go to the
      lower anchor index, then to the lower object index. If two objects have the same best anchor, the object with the
      smaller overlap gets its next best anchor.
    - "all" (RetinaNet in mmdetection): the anchor that overlaps an object most takes that object, whatever the IoU. If
      several anchors are equal, all of them do. If two objects have the same anchor, it takes the later object.
    - "band" (RetinaNet in Detectron): such an anchor is positive if its best IoU is at least `negative`, for the object
      that it overlaps most.
    - "none": nothing.

    An IoU must be above 1e-6 for any of these.

    With `ignore_crowd`, an anchor that lies at least half inside a crowd region is neither positive nor negative.
    Without it, crowd regions have no effect.

    Memory stays bounded for any number of objects, because the overlaps [B, G, A] are computed in chunks and never
    kept. On a processor only those are computed that can decide anything (`near_matches`): the time grows with the
    objects, not with objects times anchors. The result is the same. The matcher runs under no_grad and outside compiled
    graphs. On a GPU it waits for the device once per round, to test whether an object still has no anchor.
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
        batch = len(targets.labels)
        objects = (targets.labels >= 0) & ~targets.crowd
        found = self._near if boxes.device.type == "cpu" and boxes.dtype == torch.float32 else self._dense
        usable, best, owner, forced = found(anchors, targets, objects)
        positive = best >= self.positive
        if self.low_quality == "band":
            positive = positive | ((forced >= 0) & (best >= self.negative))
        else:
            owner = torch.where(forced >= 0, forced, owner)
            positive = positive | (forced >= 0)
        counted = usable & (positive | (best < self.negative))
        if targets.boxes.shape[1] == 0:
            matched_boxes, labels = boxes.expand(batch, -1, -1), torch.zeros_like(owner)
        else:
            # Whole rows are copied: several times faster than `gather` with an index for each coordinate.
            row = (owner + targets.boxes.shape[1] * torch.arange(batch, device=owner.device)[:, None]).reshape(-1)
            own = targets.boxes.reshape(-1, 4).index_select(0, row).view(*owner.shape, 4)
            matched_boxes = torch.where(positive[..., None], own, boxes)
            labels = torch.where(positive, targets.labels.reshape(-1).index_select(0, row).view_as(owner), 0)
        return Matched(boxes, matched_boxes, labels, positive, counted)

    def _dense(self, anchors: Anchors, targets: Targets, objects: Tensor) -> _Found:
        """From the overlaps of all objects and all anchors: for a GPU, and the reference of `_near`."""
        boxes = anchors.boxes.detach()
        usable = torch.ones(len(objects), boxes.shape[-2], dtype=torch.bool, device=boxes.device)
        if anchors.usable is not None:
            usable = usable & anchors.usable
        if self.ignore_crowd:
            usable = usable & ~_inside_crowd(boxes, targets)
        overlaps = _Overlaps(targets.boxes, objects, boxes, usable)
        best, owner, first, champion = overlaps.best_pairs(ties=self.low_quality in ("all", "band"))
        return _Found(usable, best, owner, _greedy(overlaps, objects, first) if self._bipartite else champion)

    def _near(self, anchors: Anchors, targets: Targets, objects: Tensor) -> _Found:
        """As `_dense`, but an IoU below both thresholds may be given as another one below them."""
        count = anchors.boxes.shape[-2]
        near = by_place(anchors.boxes.detach() if anchors.boxes.requires_grad else anchors.boxes)
        usable = torch.ones(len(objects), count, dtype=torch.bool)
        if anchors.usable is not None:
            usable &= anchors.usable
        if self.ignore_crowd:
            usable &= ~torch.from_numpy(inside_crowd(near, targets.boxes, targets.crowd, count))
        least = min(self.positive, self.negative)
        matches = NearMatches(near, targets.boxes, objects, anchors=count, usable=usable, least=least)
        best, owner, first, champion = matches.best_pairs(
            every_object=self.low_quality != "none", ties=self.low_quality in ("all", "band")
        )
        return _Found(usable, best, owner, matches.greedy(first) if self._bipartite else champion)

    @property
    def _bipartite(self) -> bool:
        return self.low_quality == "bipartite"


class _Found(NamedTuple):
    """What decides the matching, all [B, A]."""

    usable: Tensor
    best: Tensor  # IoU with the object that the anchor overlaps most
    owner: Tensor  # that object
    forced: Tensor  # the object that takes the anchor whatever the IoU, -1 for none


class _Overlaps:
    """IoU of the objects and anchors of a batch, computed for a few objects at a time.

    Boxes that take no part are replaced by a point. Its IoU is 0 with everything, so no mask is needed.
    """

    def __init__(self, boxes: Tensor, objects: Tensor, anchors: Tensor, usable: Tensor) -> None:
        self.boxes = boxes.masked_fill(~objects[..., None], 0.0)
        self.anchors = anchors.masked_fill(~usable[..., None], 0.0)
        self.step = _objects_at_once(self.anchors)

    def rows(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The objects `index` [B, n] in parts [B, few], each part with its IoU with all anchors [B, few, A]."""
        for part in torch.split(index, self.step, dim=1):
            yield part, pairwise_iou(self.boxes.gather(1, part[..., None].expand(-1, -1, 4)), self.anchors)

    def best_pairs(self, *, ties: bool) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
        """Each anchor's best IoU and its object, both [B, A], and each object's best IoU and its anchor, both [B, G].

        If several are equal, the one with the lowest index is taken. With `ties` a fifth result [B, A] gives, for each
        anchor, the last object that no other anchor overlaps more; -1 for none.
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
            value, anchor = iou.max(2)  # the first if several are equal
            values.append(value)
            favourites.append(anchor)
            if ties:
                most = (iou == value[..., None]) & (value > LEAST_OVERLAP)[..., None]
                champion = torch.maximum(champion, torch.where(most, part[..., None], -1).amax(1))
            value, row = iou.max(1)
            better = value > best
            best = torch.where(better, value, best)
            owner = torch.where(better, part.gather(1, row), owner)
        return best, owner, (torch.cat(values, 1), torch.cat(favourites, 1)), champion

    def best_winning(self, index: Tensor, held: Tensor, holder: Tensor) -> tuple[Tensor, Tensor]:
        """Each object's best IoU with an anchor that prefers it to its holder (else -1), and that anchor, both [B, n].

        `holder` [B, A] is the object that each anchor has now, `held` [B, A] the IoU with it.
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

    It is done as deferred acceptance. Every object without an anchor asks the best anchor that prefers it to its
    present object, and an anchor takes the best object that asks. Objects and anchors rank pairs in the same order
    (IoU, then anchor, then object). So there is exactly one stable matching, and it is the greedy one: it contains the
    best pair of all, then the best of the rest, and so on. A few rounds are enough, and only objects that still wait
    take part in a round. `first` is what the objects ask in the first round: their best IoU and its anchor.
    """
    (batch, count), num_anchors = objects.shape, overlaps.anchors.shape[1]
    # There is one more column than anchors. It receives what belongs to no anchor, and is never read.
    held = overlaps.boxes.new_full((batch, num_anchors + 1), LEAST_OVERLAP)
    holder = torch.full((batch, num_anchors + 1), count, device=objects.device)
    index = torch.arange(count, device=objects.device).expand_as(objects)
    active, hopeful, (value, anchor) = objects, objects, first
    while True:
        asking = active & (value > LEAST_OVERLAP)
        hopeful = hopeful.scatter(1, index, hopeful.gather(1, index) & (asking | ~active))
        place = torch.where(asking, anchor, num_anchors)
        held = held.scatter_reduce(1, place, value, "amax")
        taken = torch.where(asking & (value == held.gather(1, place)), place, num_anchors)
        lowest = torch.full_like(holder, count).scatter_reduce(1, taken, index, "amin")
        holder = torch.where(lowest < count, lowest, holder)
        served = torch.zeros(batch, count + 1, dtype=torch.bool, device=objects.device).scatter(1, holder[:, :-1], True)
        waiting = hopeful & ~served[:, :count]
        most = int(waiting.sum(1).max()) if count else 0  # the only wait for the device in a round
        if most == 0:
            return torch.where(holder < count, holder, -1)[:, :-1]
        index = waiting.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        active = waiting.gather(1, index)
        value, anchor = overlaps.best_winning(index, held[:, :-1], holder[:, :-1])


def _objects_at_once(anchors: Tensor) -> int:
    """How many objects of each image are compared with the anchors [B, A, 4] at once."""
    return max(1, _CHUNK.get(anchors.device.type, _CHUNK_ELSEWHERE) // (anchors.shape[0] * anchors.shape[1]))


def _inside_crowd(boxes: Tensor, targets: Targets) -> Tensor:
    """Whether at least half of an anchor's area lies inside one crowd region: [B, A]."""
    batch = len(targets.labels)
    boxes = boxes.expand(batch, -1, -1)
    result = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    step = _objects_at_once(boxes)
    for start in range(0, targets.crowd.shape[1], step):
        share = coverage(boxes, targets.boxes[:, start : start + step])
        result |= ((share >= 0.5) & targets.crowd[:, None, start : start + step]).any(2)
    return result
