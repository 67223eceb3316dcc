"""Where predictions start from: SSD's default boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from singleshot.structures import Anchors


@dataclass(frozen=True)
class BoxGroup:
    """Default boxes of one scale in each cell of a map.

    In the order of the authors' prior box layer: the square of side `size`; if `next_size` is given, the square of
    side sqrt(size * next_size); then for each ratio r a box of ratio r and one of ratio 1/r (width = size * sqrt(r),
    height = size / sqrt(r)). Sides are pixels of the network's input.
    """

    size: float
    next_size: float | None = None
    ratios: tuple[float, ...] = (2.0,)

    def shapes(self) -> list[tuple[float, float]]:
        """(width, height) of each box of the group."""
        shapes = [(self.size, self.size)]
        if self.next_size is not None:
            side = math.sqrt(self.size * self.next_size)
            shapes.append((side, side))
        for ratio in self.ratios:
            root = math.sqrt(ratio)
            shapes += [(self.size * root, self.size / root), (self.size / root, self.size * root)]
        return shapes

    def __len__(self) -> int:
        return 1 + (self.next_size is not None) + 2 * len(self.ratios)


class DefaultBoxes:
    """SSD's default boxes (paper section 2.2): groups of boxes around the centre of each cell of each map.

    `levels`: the groups of each map, finest first. `steps`: distance of the cells' centres in pixels for each map, as
    the authors' published tables give it; without it the distance is image size / map size (the paper's (i + 0.5) /
    |f_k|).
    `clip`: cut boxes at the image's border (the authors do not). `boundary`: with False, boxes that cross the border
    take no part in training (paper Table 3; the rule of Faster R-CNN).
    """

    def __init__(
        self,
        levels: Sequence[Sequence[BoxGroup]],
        *,
        steps: Sequence[float] | None = None,
        clip: bool = False,
        boundary: bool = True,
    ) -> None:
        if steps is not None and len(steps) != len(levels):
            raise ValueError(f"steps must have one number for each of the {len(levels)} levels, got {list(steps)}")
        self.levels = tuple(tuple(groups) for groups in levels)
        self.steps = None if steps is None else tuple(steps)
        self.clip, self.boundary = clip, boundary

    @property
    def per_location(self) -> tuple[int, ...]:
        """Boxes in each cell, for each level."""
        return tuple(sum(len(group) for group in groups) for groups in self.levels)

    def __call__(self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]) -> Anchors:
        """Shapes (h, w) of the maps and (height, width) of the network's input -> Anchors with boxes [A, 4].

        Levels in order; within a level row by row, then column, then box.
        """
        if len(shapes) != len(self.levels):
            raise ValueError(f"expected {len(self.levels)} maps, got {len(shapes)}: {list(shapes)}")
        levels = []
        for level, (groups, (rows, columns)) in enumerate(zip(self.levels, shapes, strict=True)):
            if self.steps is None:
                step_y, step_x = size[0] / rows, size[1] / columns
            else:
                step_y = step_x = self.steps[level]
            y = (torch.arange(rows, dtype=torch.float64) + 0.5) * step_y
            x = (torch.arange(columns, dtype=torch.float64) + 0.5) * step_x
            centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)
            half = torch.tensor([shape for group in groups for shape in group.shapes()], dtype=torch.float64) / 2
            levels.append(torch.cat([centres - half, centres + half], -1).reshape(-1, 4))
        boxes = torch.cat(levels).float()
        counts = tuple(len(level) for level in levels)
        usable = None if self.boundary else inside(boxes, size)
        if self.clip:
            limit = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        return Anchors(boxes, counts, usable)


def inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [A, 4] that lie wholly inside an image of (height, width) -> [A] bool."""
    return (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= size[1]) & (boxes[:, 3] <= size[0])


def linear_scales(levels: int, smallest: float = 0.2, largest: float = 0.9) -> list[float]:
    """Equation 4 of the SSD paper: s_k = s_min + (s_max - s_min) / (m - 1) * (k - 1) for k = 1..m, shares of the image
    side.

    One more scale, the next step of the line, is given for the square between the last level and the one that would
    follow.
    """
    if levels < 1:
        raise ValueError(f"default boxes need at least one map, got {levels}")
    step = (largest - smallest) / max(levels - 1, 1)
    return [smallest + step * k for k in range(levels + 1)]
