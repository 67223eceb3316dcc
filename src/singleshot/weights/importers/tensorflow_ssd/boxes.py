"""The anchors of TensorFlow's SSDs: the shapes of the boxes of a cell, from the numbers in a file or as published."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from singleshot.anchors import linear_scales
from singleshot.errors import UserError

Shapes = list[list[list[float]]]
"""For each map [width, height] of the boxes of a cell, as shares of the image's shorter side."""

_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)  # as in the published configurations
_FIRST = 0.1  # scale of the square on the finest map
_DIGITS = 7  # anchors in a file are float32


def published_shapes(per_cell: Sequence[int]) -> Shapes:
    """The boxes of the published configurations: scales 0.2 to 0.95, the finest map with three boxes.

    Raises:
        UserError: the numbers of boxes in a cell are others.
    """
    if list(per_cell) != [3, *[1 + len(_RATIOS)] * (len(per_cell) - 1)] or len(per_cell) < 2:
        raise UserError(
            f"the file does not have the anchors, and its cells have {list(per_cell)} boxes; the anchors are known for "
            "3 boxes on the finest map and 6 on each other one"
        )
    scales = [*linear_scales(len(per_cell), 0.2, 0.95)[:-1], 1.0]
    first = [(_FIRST, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
    rest = [
        [*((scale, ratio) for ratio in _RATIOS), (math.sqrt(scale * scales[k + 1]), 1.0)]
        for k, scale in enumerate(scales[1:-1], 1)
    ]
    return [[[s * math.sqrt(r), s / math.sqrt(r)] for s, r in level] for level in (first, *rest)]


def shapes_of_anchors(
    anchors: Tensor, image_size: tuple[int, int], maps: Sequence[tuple[int, int]], per_cell: Sequence[int]
) -> Shapes:
    """The boxes of a cell of each map from a file's anchors [A, 4]: (y, x, height, width), shares of the image.

    Raises:
        UserError: the anchors are not the same boxes around the middle of every cell.
    """
    count = sum(rows * columns * number for (rows, columns), number in zip(maps, per_cell, strict=True))
    if anchors.shape != (count, 4):
        raise UserError(f"the file's anchors are {tuple(anchors.shape)}; expected ({count}, 4) for its maps {maps}")
    side, start, found = min(image_size), 0, []
    for (rows, columns), number in zip(maps, per_cell, strict=True):
        end = start + rows * columns * number
        level = anchors[start:end].double().reshape(rows, columns, number, 4)
        middles = torch.stack(torch.meshgrid(_middles(rows), _middles(columns), indexing="ij"), -1)
        regular = torch.cat(
            [middles[:, :, None].expand(-1, -1, number, -1), level[:1, :1, :, 2:].expand_as(level[..., 2:])], -1
        )
        if not torch.allclose(level, regular, rtol=0, atol=1e-5):
            raise UserError(
                f"the file's anchors on the map of {rows} x {columns} cells are not the same boxes around the middle "
                "of each cell; such anchors cannot be imported"
            )
        height, width = (level[0, 0, :, 2] * image_size[0] / side), (level[0, 0, :, 3] * image_size[1] / side)
        found.append(
            [[round(w, _DIGITS), round(h, _DIGITS)] for w, h in zip(width.tolist(), height.tolist(), strict=True)]
        )
        start = end
    return found


def _middles(cells: int) -> Tensor:
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
