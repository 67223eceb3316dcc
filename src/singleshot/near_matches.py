"""The best pairs of objects and anchors on a processor, from those pairs alone that overlap enough."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from singleshot.ops.near import NearBoxes

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEAST_OVERLAP = 1e-6  # authors' MatchBBox: a pair without overlap is never matched
_KEPT = 16
_kept: OrderedDict[int, tuple[weakref.ref[Tensor], int, NearBoxes]] = OrderedDict()


def by_place(anchors: Tensor) -> NearBoxes:
    """Anchors [A, 4] or [B, A, 4] by their place. Those of all images are kept: a detector shows them at each step."""
    if anchors.ndim == 3:
        batch, count = anchors.shape[:2]
        return NearBoxes(anchors.reshape(-1, 4).numpy(), np.repeat(np.arange(batch), count))
    key, version = id(anchors), anchors._version
    before = _kept.get(key)
    if before is not None and before[0]() is anchors and before[1] == version:
        return before[2]
    found = NearBoxes(anchors.numpy())
    _kept[key] = weakref.ref(anchors), version, found
    while len(_kept) > _KEPT:
        _kept.popitem(last=False)
    return found


def inside_crowd(near: NearBoxes, boxes: Tensor, crowd: Tensor, count: int) -> Flags:
    """Whether at least half of the area of each of `count` anchors lies inside one crowd region: [B, A]."""
    image, row = np.nonzero(crowd.numpy())
    result = np.zeros((len(crowd), count), np.bool_)
    for pairs in near.inside(boxes.numpy()[image, row], 0.5, image if near.images > 1 else None):
        result[image[pairs.query], pairs.box % count] = True
    return result


class NearMatches:
    """The objects of a batch and the anchors that they overlap.

    A pair is one number that ranks it: the bits of its IoU, and an index from the end. IoUs above 0 are in the order of
    their bits, so the greatest number is the best pair, and of equal ones that with the lowest index.

    Every search begins with the overlap of `least`. Few pairs have that much, and they decide all but the objects that
    no anchor fits. Those are searched again with less.

    Args:
        boxes, objects: [B, G, 4], and which of them are objects [B, G].
        usable: which anchors take part [B, A].
        least: the smaller of the matcher's two thresholds.
    """

    def __init__(
        self, near: NearBoxes, boxes: Tensor, objects: Tensor, *, anchors: int, usable: Tensor, least: float
    ) -> None:
        self.near, self.anchors, self.batch = near, anchors, len(boxes)
        self.image, self.row = np.nonzero(objects.numpy())
        self.boxes = boxes.numpy()[self.image, self.row]
        self.usable = None if bool(usable.all()) else usable.reshape(-1).numpy()
        self.levels = (least, least / 2, least / 8, 0.0) if least > 0 else (0.0,)

    def search(self, objects: Integers, least: float) -> Iterator[tuple[Integers, Integers, Integers]]:
        """Pairs with at least this IoU: the object, the anchor in the batch [B * A], the bits of the IoU shifted up."""
        image = self.image[objects]
        for pairs in self.near.overlapping(self.boxes[objects], least, image if self.near.images > 1 else None):
            anchor = pairs.box
            if self.near.images == 1:
                anchor = anchor + image[pairs.query] * self.anchors
            bits = pairs.overlap.view(np.int32).astype(np.int64) << 32
            if self.usable is None:
                yield objects[pairs.query], anchor, bits
            else:
                kept = np.flatnonzero(self.usable[anchor])
                yield objects[pairs.query[kept]], anchor[kept], bits[kept]

    def best_pairs(self, *, every_object: bool, ties: bool) -> tuple[Tensor, Tensor, Integers, Tensor]:
        """Each anchor's best IoU and its object, both [B, A]; each object's best pair; the champions [B, A].

        An IoU below the matcher's thresholds may be given as another one below them, or as 0. Without `every_object`
        only objects with anchors above the threshold have a best pair. The champion of an anchor (with `ties`) is the
        last object that no other anchor overlaps more, -1 for none.
        """
        held = torch.zeros(self.batch * self.anchors, dtype=torch.int64)
        champion = np.full(self.batch * self.anchors, -1)
        best = np.zeros(len(self.boxes), np.int64)
        objects = np.arange(len(self.boxes))
        for level in self.levels:
            for owner, anchor, bits in self.search(objects, level):
                held.scatter_reduce_(0, torch.from_numpy(anchor), torch.from_numpy(bits + _last(owner)), "amax")
                begin = _beginnings(owner)
                best[owner[begin]] = np.maximum.reduceat(bits + _last(anchor), begin) if len(begin) else 0
                if not ties:
                    continue
                most = np.flatnonzero((bits == best[owner] & _HIGH) & (bits > _LEAST))
                np.maximum.at(champion, anchor[most], owner[most])
            objects = objects[best[objects] == 0]
            if not (every_object and len(objects)):
                break
        pair = held.numpy()
        overlap = (pair >> 32).astype(np.int32).view(np.float32)
        row = np.append(self.row, 0)
        shape = self.batch, self.anchors
        return (
            torch.from_numpy(overlap).view(shape),
            torch.from_numpy(row[np.where(pair > 0, _last(pair & _LOW), len(self.row))]).view(shape),
            best,
            torch.from_numpy(np.where(champion < 0, -1, row[champion])).view(shape),
        )

    def greedy(self, best: Integers) -> Tensor:
        """Greedy bipartite matching: the object of each anchor, -1 for none [B, A]. As `matchers._greedy`.

        `best` is what the objects ask in the first round.
        """
        held = np.full(self.batch * self.anchors, _LEAST | _LOW)  # the pair of each anchor, and its object
        level = np.zeros(len(best), np.int64)
        waiting = np.arange(len(best))
        holds = np.full(len(best), -1)  # the anchor of each object
        asks = best
        while True:
            asking = asks > (_LEAST | _LOW)
            waiting, asks = waiting[asking], asks[asking]
            anchor = _last(asks & _LOW)
            np.maximum.at(held, anchor, (asks & _HIGH) + _last(waiting))
            holds[waiting] = anchor
            served = held[holds[...]] & _LOW
            lost = np.flatnonzero((holds >= 0) & (served != _last(np.arange(len(best)))))
            holds[lost] = -1
            if not len(lost):
                result = np.full(len(held), -1)
                owners = np.flatnonzero(holds >= 0)
                result[holds[owners]] = self.row[owners]
                return torch.from_numpy(result).view(self.batch, self.anchors)
            waiting, asks = lost, self._next(lost, held, level)

    def _next(self, objects: Integers, held: Integers, level: Integers) -> Integers:
        """The best pair of each object with an anchor that prefers it to its holder; 0: none. It updates `level`."""
        found = np.zeros(len(level), np.int64)
        left = objects
        for number, least in enumerate(self.levels):
            now = left[level[left] == number]
            for owner, anchor, bits in self.search(now, least):
                wins = np.flatnonzero(bits + _last(owner) > held[anchor])
                owner, anchor, bits = owner[wins], anchor[wins], bits[wins]
                begin = _beginnings(owner)
                if len(begin):
                    found[owner[begin]] = np.maximum.reduceat(bits + _last(anchor), begin)
            none = now[found[now] == 0]
            level[none] = min(number + 1, len(self.levels))
        return found[objects]


_LOW, _HIGH = np.int64(0xFFFFFFFF), np.int64(-1) << np.int64(32)
_LEAST = np.int64(np.float32(LEAST_OVERLAP).view(np.int32)) << np.int64(32)


def _last(index: Integers) -> Integers:
    """An index counted from the end, in the lower half of a pair's number; and back."""
    return _LOW - index


def _beginnings(owner: Integers) -> Integers:
    """Where the pairs of each object begin."""
    return np.flatnonzero(np.append(True, owner[1:] != owner[:-1])) if len(owner) else owner
