"""Pairs of boxes that overlap, found without comparing every box with every other one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]
Integers = NDArray[np.int64]

_PAIRS = 1 << 18  # that are computed at once: few enough for a processor's cache
_QUERIES = 512  # boxes that are looked up at once
_SIZES = 64  # classes of widths, and of heights
_SLACK = 1e-5  # relative; the windows are that much larger, because an IoU is rounded to float32
_TINY = np.finfo(np.float32).tiny


class Pairs(NamedTuple):
    """Some pairs of a query and a box. All pairs of a query stand together, in the order of the queries."""

    query: Integers
    box: Integers
    overlap: Floats


class _Windows(NamedTuple):
    """Where the centre of a box must lie to be near a query: a rectangle around the query's centre. [M, groups]."""

    possible: NDArray[np.bool_]
    x: Wide
    y: Wide


class NearBoxes:
    """Boxes [N, 4], float32 xyxy, by size and place.

    Boxes of about the same width and height are one group (a factor of 1.4 at most). Within a group they are sorted
    into the cells of a grid. How far from a query the centre of a box may lie follows from their sizes and the overlap
    that is asked for. So of each group only the cells within a small window are read, row by row.

    With `images` [N], ascending from 0, boxes and queries of different images never meet.

    Boxes without area, or with a number that is not finite, overlap nothing.
    """

    def __init__(self, boxes: Floats, images: Integers | None = None) -> None:
        x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
        width, height = x2 - x1, y2 - y1
        good = (width > 0) & (height > 0) & np.isfinite(width) & np.isfinite(height) & np.isfinite(x1) & np.isfinite(y1)
        places = np.flatnonzero(good)
        self.images = 1 if images is None else int(images.max(initial=0)) + 1
        size = _size_class(width[places]) * _SIZES + _size_class(height[places])
        counts = np.bincount(size, minlength=_SIZES * _SIZES)
        group = (np.cumsum(counts > 0) - 1)[size]  # 0, 1, ...: without those that are empty
        members = np.argsort(group.astype(np.int16), kind="stable")
        places, group = places[members], group[members]
        filled = counts[counts > 0]
        first = np.cumsum(filled) - filled
        width, height = width[places].astype(np.float64), height[places].astype(np.float64)
        x, y = x1[places].astype(np.float64) + width / 2, y1[places].astype(np.float64) + height / 2
        self.least_width, self.most_width = _bounds(width, first)
        self.least_height, self.most_height = _bounds(height, first)
        self.left, right = _bounds(x, first)
        self.top, bottom = _bounds(y, first)
        # Cells of a quarter of a box, but not many more cells than boxes.
        self.step_x, self.step_y = np.maximum(self.least_width / 4, _TINY), np.maximum(self.least_height / 4, _TINY)
        cells = ((right - self.left) / self.step_x + 1) * ((bottom - self.top) / self.step_y + 1) * self.images
        coarser = np.sqrt(np.maximum(cells / (2.0 * filled + 16), 1.0))
        for _ in range(2):  # a row of boxes cannot become coarser in both directions
            self.step_x, self.step_y = self.step_x * coarser, self.step_y * coarser
            self.columns = ((right - self.left) / self.step_x).astype(np.int64) + 1
            self.rows = ((bottom - self.top) / self.step_y).astype(np.int64) + 1
            coarser = np.maximum(self.columns * self.rows * self.images / (4.0 * filled + 16 * self.images), 1.0)
        size_of_group = self.columns * self.rows * self.images
        self.start = np.cumsum(size_of_group) - size_of_group
        column = ((x - self.left[group]) / self.step_x[group]).astype(np.int64)
        row = ((y - self.top[group]) / self.step_y[group]).astype(np.int64)
        image = 0 if images is None else images[places]
        cell = self.start[group] + (image * self.rows[group] + row) * self.columns[group] + column
        order = np.argsort(cell)
        self.boxes = places[order]
        self.corners = [side[self.boxes] for side in (x1, y1, x2, y2)]
        self.area = ((x2 - x1) * (y2 - y1))[self.boxes]
        total = int(size_of_group.sum())
        self.before = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=total))])  # boxes before each cell

    def overlapping(self, queries: Floats, least: float, images: Integers | None = None) -> Iterator[Pairs]:
        """All pairs of a query [M, 4] and a box whose IoU is at least `least`, and above 0.

        The IoU is that of `pairwise_iou`, bit for bit.
        """
        least = max(least, 0.0)
        sides = (queries[:, 2:] - queries[:, :2]).clip(min=0)
        areas = sides[:, 0] * sides[:, 1]
        for query, place, common in self._pairs(queries, images, partial(self._by_iou, least=least * (1 - _SLACK))):
            union = areas[query]
            union += self.area[place]
            union -= common
            common /= np.maximum(union, _TINY, out=union)
            enough = np.flatnonzero((common >= least) & (common > 0))
            yield Pairs(query[enough], self.boxes[place[enough]], common[enough])

    def inside(self, queries: Floats, share: float, images: Integers | None = None) -> Iterator[Pairs]:
        """All pairs of which at least `share` (above 0) of the box's own area lies inside the query, with that share.

        The share is that of `coverage`, bit for bit.
        """
        for query, place, common in self._pairs(queries, images, partial(self._by_share, share=share * (1 - _SLACK))):
            common /= np.maximum(self.area[place], _TINY)
            enough = np.flatnonzero(common >= share)
            yield Pairs(query[enough], self.boxes[place[enough]], common[enough])

    def _by_iou(self, width: Wide, height: Wide, least: float) -> _Windows:
        """A box and a query [M, 1] of an IoU of at least `least`, from the bounds of each group [groups].

        The intersection is at least least / (1 + least) of the sum of the areas, and it is not higher than the lower of
        the two. This gives its least width, and so the largest distance of the centres in x. The IoU of the two widths
        alone is at least `least` too.
        """
        narrow, low = np.minimum(self.most_width, width), np.minimum(self.most_height, height)
        area, smallest = width * height, self.least_width * self.least_height
        share = least / (1 + least)
        needed = share * (smallest + area)
        wide, tall = self.most_width + width, self.most_height + height
        x = wide * (0.5 + _SLACK) - np.maximum(share * wide, needed / low)
        y = tall * (0.5 + _SLACK) - np.maximum(share * tall, needed / narrow)
        possible = (narrow * low >= least * np.maximum(area, smallest)) & (x >= 0) & (y >= 0)
        possible &= (self.least_width * least <= width) & (self.least_height * least <= height)
        return _Windows(possible, x, y)

    def _by_share(self, width: Wide, height: Wide, share: float) -> _Windows:
        """A query [M, 1] that covers at least `share` of a box, from the bounds of each group [groups]."""

        def reach(side: Wide, least: Wide, most: Wide) -> Wide:
            return side * (0.5 + _SLACK) + np.maximum((0.5 - share) * least, (0.5 - share) * most)

        possible = (self.least_width * share <= width) & (self.least_height * share <= height)
        x = reach(width, self.least_width, self.most_width)
        return _Windows(possible, x, reach(height, self.least_height, self.most_height))

    def _pairs(
        self, queries: Floats, images: Integers | None, windows: Callable[[Wide, Wide], _Windows]
    ) -> Iterator[tuple[Integers, Integers, Floats]]:
        """The pairs in the windows, in parts: the query, the place of the box in cell order, the common area."""
        for begin in range(0, len(queries), _QUERIES):
            part = slice(begin, begin + _QUERIES)
            query, first, last = self._ranges(queries[part], None if images is None else images[part], windows)
            ends = np.cumsum(last - first)
            edge = 0
            while edge < len(query):  # some queries, each as a whole, with not many more than `_PAIRS` pairs
                most = (ends[edge - 1] if edge else 0) + _PAIRS
                upto = max(int(np.searchsorted(ends, most)), edge + 1)
                upto = int(np.searchsorted(query, query[upto - 1], side="right"))
                yield self._common(queries, begin + query[edge:upto], first[edge:upto], last[edge:upto])
                edge = upto

    def _ranges(
        self, queries: Floats, images: Integers | None, windows: Callable[[Wide, Wide], _Windows]
    ) -> tuple[Integers, Integers, Integers]:
        """Which boxes, in cell order, are in the windows: the query of each range, its beginning and its end."""
        x1, y1, x2, y2 = queries.astype(np.float64).T[..., None]
        width, height = x2 - x1, y2 - y1
        good = (width > 0) & (height > 0) & np.isfinite(width) & np.isfinite(height)
        width, height = np.where(good, width, 1.0), np.where(good, height, 1.0)
        near = windows(width, height)
        query, group = np.nonzero(near.possible & good)
        x, y = (x1 + width / 2)[query, 0] - self.left[group], (y1 + height / 2)[query, 0] - self.top[group]
        reach_x, reach_y = near.x[query, group], near.y[query, group]
        left, right = _cells(x, reach_x, self.step_x[group], self.columns[group])
        top, bottom = _cells(y, reach_y, self.step_y[group], self.rows[group])
        inside = np.flatnonzero((left <= right) & (top <= bottom))
        query, group, left, right, top, bottom = (one[inside] for one in (query, group, left, right, top, bottom))
        times = bottom - top + 1
        row = np.repeat(top, times) + _counting(times)
        query, group, left, right = (np.repeat(one, times) for one in (query, group, left, right))
        image = 0 if images is None else images[query]
        cell = self.start[group] + (image * self.rows[group] + row) * self.columns[group]
        first, last = self.before[cell + left], self.before[cell + right + 1]
        filled = np.flatnonzero(first < last)
        return query[filled], first[filled], last[filled]

    def _common(
        self, queries: Floats, query: Integers, first: Integers, last: Integers
    ) -> tuple[Integers, Integers, Floats]:
        times = last - first
        place = np.repeat(first, times) + _counting(times)
        x1, y1, x2, y2 = (np.repeat(side, times) for side in queries[query].T)
        left, top, right, bottom = (side[place] for side in self.corners)
        common = np.minimum(right, x2, out=right)
        common -= np.maximum(left, x1, out=left)
        high = np.minimum(bottom, y2, out=bottom)
        high -= np.maximum(top, y1, out=top)
        common = np.maximum(common, 0, out=common)
        common *= np.maximum(high, 0, out=high)
        return np.repeat(query, times), place, common


def _size_class(sides: Floats) -> Integers:
    """Numbers of the same class differ by a factor of 1.4 at most, but for those below 1."""
    return (2 * np.log2(np.maximum(sides, 1))).clip(0, _SIZES - 1).astype(np.int64)


def _bounds(values: Wide, first: Integers) -> tuple[Wide, Wide]:
    """The least and the largest value of each group; `first` is where it begins."""
    if not len(first):
        return values, values
    return np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)


def _cells(centre: Wide, reach: Wide, step: Wide, count: Integers) -> tuple[Integers, Integers]:
    """The first and the last cell of a window; the first is after the last if the window lies outside."""
    low, high = np.floor((centre - reach) / step), np.floor((centre + reach) / step)
    return np.maximum(low, 0).clip(max=count).astype(np.int64), np.minimum(high, count - 1).clip(-1).astype(np.int64)


def _counting(times: Integers) -> Integers:
    """0, 1, ... for each of `times` numbers, one after the other."""
    ends = np.cumsum(times)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - times, times)
