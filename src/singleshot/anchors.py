"""The boxes that predictions start from: SSD's default boxes, and the anchors of a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.structures import Anchors


class AnchorMaker(Protocol):
    """Makes the anchors of a detector."""

    @property
    def per_location(self) -> tuple[int, ...]:
        """Boxes in each cell, for each level."""

    def __call__(self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]) -> Anchors:
        """Shapes (h, w) of the maps and (height, width) of the network's input -> Anchors with boxes [A, 4]."""


Convention = Literal["corner", "centre", "torchvision", "legacy", "whole_pixels"]
Clip = bool | Literal["sizes", "centres_and_sizes"]
"""What is clipped of SSD's default boxes: nothing, the corners, or numbers of (x, y, width, height) one by one."""


class AnchorGenerator:
    """The anchors of a feature pyramid (focal loss paper, section 4): sizes x ratios around a point of each cell.

    In a cell the order is: for each ratio, each size.

    Args:
        strides: distance of the cells in pixels, for each level.
        sizes: for each level, the square roots of the areas.
        ratios: height / width; the area stays the same.
        convention: where the cells have their centres, and what is rounded. No effect on accuracy has been measured.

            - "corner": centres at (i * stride, j * stride), nothing rounded (Detectron2, mmdetection 2 and later).
            - "centre": centres in the middle of the cell, (i + 0.5) * stride, nothing rounded.
            - "torchvision": as "corner", but sizes are truncated to integers, and corners around (0, 0) are rounded.
              The step is the input's height (width) divided by that of the map, truncated to an integer. This is less
              than the stride on the coarsest maps if the input is not a multiple of their size.
            - "legacy": Detectron's boxes of whole pixels, where a side is x2 - x1 + 1. In continuous coordinates (a
              pixel ends where the next begins) these are boxes around the middle of the cell. Their sides come from a
              base box of stride x stride whose sides are rounded to integers. If the ground truth also has its full
              width, x2 = x1 + width, then intersections and differences equal those of the "+1" arithmetic.
            - "whole_pixels": as "legacy", but with corners rounded to whole pixels (mmdetection before 2).
    """

    def __init__(
        self,
        strides: Sequence[float],
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        *,
        convention: Convention = "corner",
    ) -> None:
        if len(strides) != len(sizes):
            raise UserError(f"expected sizes for each of the {len(strides)} levels, got {len(sizes)}: {list(sizes)}")
        if not all(sizes) or not ratios or min(min(level) for level in sizes) <= 0 or min(ratios) <= 0:
            raise UserError(f"anchors need positive sizes and aspect ratios, got {list(sizes)} and {list(ratios)}")
        if convention not in get_args(Convention):
            raise UserError(f"convention must be one of {', '.join(get_args(Convention))}, got {convention!r}")
        self.strides = tuple(strides)
        self.sizes = tuple(tuple(level) for level in sizes)
        self.ratios = tuple(ratios)
        self.convention = convention

    @property
    def per_location(self) -> tuple[int, ...]:
        """Boxes in each cell, for each level."""
        return tuple(len(level) * len(self.ratios) for level in self.sizes)

    def __call__(self, shapes: Sequence[tuple[int, int]], size: tuple[int, int]) -> Anchors:
        """Shapes (h, w) of the maps and (height, width) of the network's input -> Anchors with boxes [A, 4].

        Levels in order; within a level row by row, then column, then box.
        """
        if len(shapes) != len(self.strides):
            raise ValueError(f"expected {len(self.strides)} maps, got {len(shapes)}: {list(shapes)}")
        levels = []
        for stride, sizes, shape in zip(self.strides, self.sizes, shapes, strict=True):
            half, first, step = self.cell(stride, sizes, size, shape)
            levels.append(_around(_centres(shape, step, (first, first)), half))
        return Anchors(torch.cat(levels).float(), tuple(len(level) for level in levels))

    def cell(
        self, stride: float, sizes: Sequence[float], size: tuple[int, int], shape: tuple[int, int]
    ) -> tuple[Tensor, float, tuple[float, float]]:
        """Of one level: half sides [boxes, 2], the first cell's centre, and the step (y, x) of the cells."""
        first = stride / 2 if self.convention in ("centre", "legacy", "whole_pixels") else 0.0
        step: tuple[float, float] = (stride, stride)
        if self.convention == "torchvision":
            step = (size[0] // shape[0], size[1] // shape[1])
        return self._half(stride, sizes), first, step

    def _half(self, stride: float, sizes: Sequence[float]) -> Tensor:
        """Half of (width, height) of the boxes of one cell: [boxes, 2]."""
        ratios = torch.tensor(self.ratios, dtype=torch.float64)[:, None]
        sides = torch.tensor(sizes, dtype=torch.float64)
        if self.convention == "legacy":
            width = (stride / ratios.sqrt()).round()
            height = (width * ratios).round()
            scale = sides / stride
            return torch.stack([width * scale, height * scale], -1).reshape(-1, 2) / 2
        if self.convention == "torchvision":
            sides = sides.trunc()
        half = torch.stack([sides / ratios.sqrt(), sides * ratios.sqrt()], -1).reshape(-1, 2) / 2
        return half.float().round().double() if self.convention in ("torchvision", "whole_pixels") else half


def octave_sizes(sizes: Sequence[float], octaves: int) -> tuple[tuple[float, ...], ...]:
    """For each level's size, the sizes size * 2^(k / octaves), k = 0 .. octaves - 1 (focal loss paper, section 4)."""
    if octaves < 1:
        raise UserError(f"octaves: expected 1 or more sizes on each level (the paper has 3), got {octaves}")
    return tuple(tuple(size * 2 ** (k / octaves) for k in range(octaves)) for size in sizes)


@dataclass(frozen=True)
class BoxGroup:
    """Default boxes of one scale in each cell of a map.

    The order is that of the authors' prior box layer: first the square of side `size`; then, if `next_size` is given,
    the square of side sqrt(size * next_size); then for each ratio r a box of ratio r and one of ratio 1/r
    (width = size * sqrt(r), height = size / sqrt(r)). Sides are in pixels of the network's input.
    """

    size: float
    next_size: float | None = None
    ratios: tuple[float, ...] = (2.0,)

    def __post_init__(self) -> None:
        sizes = (self.size,) if self.next_size is None else (self.size, self.next_size)
        for name, values in (("sizes", sizes), ("aspect ratios", self.ratios)):
            if not all(0 < value < math.inf for value in values):
                raise UserError(f"default boxes: {name} must be above 0 and finite, got {list(values)}")

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


@dataclass(frozen=True)
class BoxShapes:
    """Default boxes in each cell of a map with any sides: (width, height) of each, in pixels of the network's input."""

    sides: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.sides or not all(0 < side < math.inf for box in self.sides for side in box):
            raise UserError(f"default boxes: sides must be above 0 and finite, got {list(self.sides)}")

    def shapes(self) -> list[tuple[float, float]]:
        """(width, height) of each box of the group."""
        return list(self.sides)

    def __len__(self) -> int:
        return len(self.sides)


class DefaultBoxes:
    """SSD's default boxes (paper section 2.2): groups of boxes around the centre of each cell of each map.

    Args:
        levels: the groups of each map, finest first.
        steps: distance of the cells' centres in pixels for each map, one number or (y, x), as in the authors' published
            tables. It stays the same if the input has another size. Default: image size / map size (the paper's
            (i + 0.5) / |f_k|).
        clip: True: clip boxes to the image (the authors do not). The two others are those of ports that clip the four
            numbers (x, y, width, height) of a box one by one: "sizes" makes a side that is longer than the image as
            long as the image (torchvision), "centres_and_sizes" also moves centres into it (ssd.pytorch).
        boundary: if False, boxes that cross the border take no part in training (paper Table 3; Faster R-CNN's rule).
    """

    def __init__(
        self,
        levels: Sequence[Sequence[BoxGroup | BoxShapes]],
        *,
        steps: Sequence[float | tuple[float, float]] | None = None,
        clip: Clip = False,
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
                step = self.steps[level]
                step_y, step_x = step if isinstance(step, tuple) else (step, step)
            half = torch.tensor([shape for group in groups for shape in group.shapes()], dtype=torch.float64) / 2
            centres = _centres((rows, columns), (step_y, step_x), (step_y / 2, step_x / 2))
            if isinstance(self.clip, str):
                sides = torch.tensor([size[1], size[0]], dtype=torch.float64)
                half = torch.minimum(half, sides / 2)
                centres = torch.minimum(centres, sides) if self.clip == "centres_and_sizes" else centres
            levels.append(_around(centres, half))
        boxes = torch.cat(levels).float()
        counts = tuple(len(level) for level in levels)
        usable = None if self.boundary else inside(boxes, size)
        if self.clip is True:
            limit = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        return Anchors(boxes, counts, usable)


def _centres(shape: tuple[int, int], step: tuple[float, float], first: tuple[float, float]) -> Tensor:
    """(x, y) of the cells' centres in a map of (rows, columns), row by row: [cells, 2]. `step`, `first` are (y, x)."""
    y = torch.arange(shape[0], dtype=torch.float64) * step[0] + first[0]
    x = torch.arange(shape[1], dtype=torch.float64) * step[1] + first[1]
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)


def _around(centres: Tensor, half: Tensor) -> Tensor:
    """Boxes with the half sides [n, 2] around points [cells, 2] -> [cells * n, 4]."""
    return torch.cat([centres[:, None] - half, centres[:, None] + half], -1).reshape(-1, 4)


def inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether each box [A, 4] lies completely inside an image of (height, width): [A] bool."""
    return (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] <= size[1]) & (boxes[:, 3] <= size[0])


def linear_scales(levels: int, smallest: float = 0.2, largest: float = 0.9) -> list[float]:
    """Equation 4 of the SSD paper, in fractions of the image's side.

    s_k = s_min + (s_max - s_min) / (m - 1) * (k - 1) for k = 1..m, where m is `levels`.

    The result has one more scale, the next step of the line. The last level needs it for its larger square.
    """
    if levels < 1:
        raise ValueError(f"default boxes need at least one map, got {levels}")
    step = (largest - smallest) / max(levels - 1, 1)
    return [smallest + step * k for k in range(levels + 1)]
