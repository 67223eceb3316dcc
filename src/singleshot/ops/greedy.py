"""Greedy suppression on the CPU, outside of traced graphs: exact, and only boxes that are near each other are compared.

Boxes of a group (the class of an image) are sorted by their middle from left to right. Two boxes with an IoU above the
threshold have middles that are near: so each box is compared only with a short run of this order. The runs of boxes
that stand side by side are nearly the same, and make one small dense table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[Any]
Places = NDArray[np.int64]
Marks = NDArray[np.bool_]

_FIRST = 512  # boxes that are taken first; then twice as many each time
_TILE = 16  # boxes side by side that share a run
_RUN = 2048  # the longest run of one table; longer ones are cut
_TABLE = 1 << 15  # pairs of a table: its numbers stay in the processor's cache
_PAIRS = 1 << 22  # pairs compared at once, which bounds the memory: if there are more, fewer boxes are taken
_RIVALS = 256  # the same for each box
_ROUNDS = 16  # of `_resolved`, before the rest is done one by one
_FARTHEST = 1e7  # middles beyond it count as there: that keeps the order, and the bits of all others


def takes(boxes: Tensor, iou_threshold: float) -> bool:
    """Whether `greedy` may be used: not in traced graphs, on other devices, or for formats that NumPy does not have."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or not iou_threshold >= 0:
        return False
    return boxes.device.type == "cpu" and boxes.dtype in (torch.float32, torch.float64)


def greedy(boxes: Numbers, groups: Places, iou_threshold: float, enough: int | None = None) -> Marks:
    """Survivors of greedy NMS within each group: boxes [N, 4], groups [N] -> [N] bool.

    The boxes of a group must be sorted, best first; groups may be mixed. A box is suppressed by a better survivor of
    its group if their IoU is greater than the threshold, 0 or more. `enough`: the first survivors in the order given
    that are needed. Later ones may be missing.

    Boxes are taken in that order, twice as many each time. The survivors so far suppress boxes among those taken, and
    only the rest is compared within itself.
    """
    alive = np.zeros(len(boxes), bool)
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    every = _Ordered(boxes, groups, iou_threshold, finite)
    left, size = np.arange(len(boxes)), _FIRST
    survivors = left[:0]
    found = 0
    while left.size and (enough is None or found < enough):
        if left.size <= 2 * size:
            size = left.size
        now, left = left[:size], left[size:]
        alive[now[~finite[now]]] = True  # an IoU with a box that is not finite is never above a threshold
        own = every.sorted(now[finite[now]])
        if survivors.size:
            own = own[~every.touched(own, survivors)]
        starts, ends = np.arange(1, own.size + 1), every.ends(own)
        while own.size > _TILE and int((ends - starts).sum()) > min(_PAIRS, _RIVALS * own.size):
            # Halved until the work fits, also for thousands of boxes in one place: few of them will survive, and
            # suppress the others cheaply.
            middle = np.sort(own)[own.size // 2]
            left = np.concatenate([np.sort(own[own >= middle]), left])
            own, size = own[own < middle], max(_TILE, own.size // 4)
            starts, ends = np.arange(1, own.size + 1), every.ends(own)
        new = own[_resolved(own, *every.pairs(own, starts, ends))]
        alive[new] = True
        survivors = every.sorted(np.concatenate([survivors, new]))
        size *= 2
        found = int(alive[: left[0] if left.size else None].sum()) if enough is not None else 0  # that are final
    return alive


class _Ordered:
    """Boxes with their place in the order of groups and middles."""

    def __init__(self, boxes: Numbers, groups: Places, threshold: float, finite: Marks) -> None:
        self.threshold = boxes.dtype.type(threshold)
        left, right = boxes[:, 0].astype(np.float64), boxes[:, 2].astype(np.float64)
        left[~finite] = right[~finite] = 0.0  # they are never asked for
        middle, width = (left + right) / 2, right - left
        # With an IoU above t, the narrower width is above t times the wider one, and so is the common width: the
        # distance of the middles is at most (w + v) / 2 - t * max(w, v), for v from t * w to w / t.
        share = max(1 - threshold, (1 / max(threshold, 1e-9) - 1) / 2)
        reach = np.minimum((width + width.max(initial=0)) / 2, width * share)
        if groups.size and (groups.min() < 0 or groups.max() > len(groups) + (1 << 16)):
            groups = np.unique(groups, return_inverse=True)[1]
        # A number for each box that sorts by group, then middle. Rounding is harmless: the reach has room for it.
        far = min(_FARTHEST, float(np.abs(middle).max(initial=0)))
        base = groups * (2 * far + 2)
        reach = reach + 1e-3 * np.abs(reach) + 1e-3 + 1e-14 * float(base.max(initial=0))
        self.key = base + middle.clip(-far, far)
        self.low = base + (middle - reach).clip(-far, far)
        self.high = base + (middle + reach).clip(-far, far)
        self.several = bool(groups.size) and bool((groups != groups[0]).any())
        self.groups = groups
        # Corners and area. One more box at the end, which overlaps nothing, fills rows and runs.
        sides = np.full((5, len(boxes) + 1), np.nan, boxes.dtype)
        sides[:4, :-1] = boxes.T
        with np.errstate(all="ignore"):
            sides[4] = (sides[2] - sides[0]).clip(min=0) * (sides[3] - sides[1]).clip(min=0)
        self.sides = torch.from_numpy(sides)
        self.memory = torch.empty(3, 0, dtype=self.sides.dtype)

    def sorted(self, places: Places) -> Places:
        """The same boxes in the order of groups and middles."""
        ordered: Places = places[self.key[places].argsort()]
        return ordered

    def ends(self, places: Places) -> Places:
        """Where the run of each box ends among the sorted `places`."""
        ends: Places = self.key[places].searchsorted(self.high[places], "right")
        return ends

    def touched(self, places: Places, survivors: Places) -> Marks:
        """Which boxes a survivor suppresses. Both are sorted."""
        key = self.key[survivors]
        starts, ends = key.searchsorted(self.low[places]), key.searchsorted(self.high[places], "right")
        marks = np.zeros(places.size, bool)
        for row, _ in self._tables(places, survivors, starts, ends):
            marks[row] = True
        return marks

    def pairs(self, places: Places, starts: Places, ends: Places) -> tuple[Places, Places]:
        """The pairs of a group with an IoU above the threshold, each once: where they are in the sorted `places`.

        `starts` and `ends`: the run of each box among them.
        """
        first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for row, column in self._tables(places, places, starts, ends):
            once = row < column
            first.append(row[once])
            second.append(column[once])
        return np.concatenate(first), np.concatenate(second)

    def _tables(self, first: Places, second: Places, starts: Places, ends: Places) -> Iterator[tuple[Places, Places]]:
        """Pairs of a group with an IoU above the threshold, table by table: where they are in `first` and `second`.

        `starts` and `ends` [len(first)]: the run of each box among `second`. All boxes of a tile are compared with all
        their runs, so a pair of `first` with itself, and each of its pairs twice, may be among them.
        """
        corner = np.arange(0, first.size, _TILE)
        if not corner.size:
            return
        start, end = np.minimum.reduceat(starts, corner), np.maximum.reduceat(ends, corner)
        if int((end - start).max()) > _RUN:
            cuts = np.maximum(1, -(-(end - start) // _RUN))
            corner, start, end = corner.repeat(cuts), start.repeat(cuts), end.repeat(cuts)
            start = start + _RUN * (np.arange(cuts.sum()) - (cuts.cumsum() - cuts).repeat(cuts))
            end = np.minimum(end, start + _RUN)
        order = (start - end).argsort(kind="stable")  # the longest first, so that those of a table are alike
        nobody = self.sides.shape[1] - 1
        one, other = np.append(first, nobody), np.append(second, nobody)
        at = 0
        while at < order.size and (length := int(end[order[at]] - start[order[at]])) > 0:
            tiles = order[at : at + max(1, _TABLE // (_TILE * length))]
            at += tiles.size
            rows = np.minimum(corner[tiles, None] + np.arange(_TILE), first.size)
            columns = start[tiles, None] + np.arange(length)
            columns = np.where(columns < end[tiles, None], columns, second.size)
            over = self._iou(one[rows], other[columns]) > self.threshold
            tile, pair = np.divmod(np.flatnonzero(over), _TILE * length)
            row, column = np.divmod(pair, length)
            row, column = rows[tile, row], columns[tile, column]
            if self.several:
                same = self.groups[first[row]] == self.groups[second[column]]
                row, column = row[same], column[same]
            yield row, column

    def _iou(self, rows: Places, columns: Places) -> Numbers:
        """IoU of boxes [P, R] with boxes [P, C], as `rows_iou` computes it, in memory that is used again: [P, R, C]."""
        a, b = (self.sides.index_select(1, torch.from_numpy(part.ravel())) for part in (rows, columns))
        a, b = a.view(5, *rows.shape, 1), b.view(5, len(columns), 1, -1)
        shape = (*rows.shape, columns.shape[1])
        size = math.prod(shape)
        if self.memory.shape[1] < size:
            self.memory = torch.empty(3, size, dtype=a.dtype)
        width, height, other = (row[:size].view(shape) for row in self.memory)
        torch.minimum(a[2], b[2], out=width)
        torch.maximum(a[0], b[0], out=height)
        width.sub_(height).clamp_(min=0)
        torch.minimum(a[3], b[3], out=height)
        torch.maximum(a[1], b[1], out=other)
        common = width.mul_(height.sub_(other))  # below 0, and never above a threshold, if it is one above the other
        torch.add(a[4], b[4], out=other)
        union = other.sub_(common).clamp_(min=torch.finfo(a.dtype).tiny)
        overlap: Numbers = common.div_(union).numpy()
        return overlap


def _resolved(places: Places, row: Places, column: Places) -> Marks:
    """Survivors among boxes [n] whose pairs above the threshold are known. A lower place is a better box.

    In each round the boxes without a better rival are sure. What they suppress is gone, with all its pairs.
    """
    alive = np.ones(places.size, bool)
    better = np.where(places[row] < places[column], row, column)
    worse = row + column - better
    for _ in range(_ROUNDS):
        if not better.size:
            return alive
        rival = np.zeros(places.size, bool)
        rival[worse] = True
        alive[worse[~rival[better]]] = False
        left = alive[better] & alive[worse]
        better, worse = better[left], worse[left]
    order = places[better].argsort(kind="stable")  # long chains: the rest one by one, in the greedy order
    for first, second in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if alive[first]:
            alive[second] = False
    return alive
