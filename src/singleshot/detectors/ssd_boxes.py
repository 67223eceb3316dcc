"""The sizes of SSD's default boxes: the authors' tables, equation 4 for all other settings, Table 3's tilings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from singleshot.anchors import BoxGroup, BoxShapes, linear_scales
from singleshot.errors import UserError, short

# Sides in pixels of the smaller square of each level, and one more after the last level (authors' ssd_pascal.py and
# ssd_coco.py: whole percents of the input, steps rounded down; reference: section 2.4).
PUBLISHED_SIZES: dict[tuple[str, int], tuple[float, ...]] = {
    ("voc", 300): (30, 60, 111, 162, 213, 264, 315),
    ("coco", 300): (21, 45, 99, 153, 207, 261, 315),
    ("voc", 512): (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6),
    ("coco", 512): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}
# Distance of the cells in pixels, from the authors' scripts: at 300 px not exactly size / cells ...
PUBLISHED_STEPS: dict[int, tuple[float, ...]] = {
    300: (8, 16, 32, 64, 100, 300),
    512: (8, 16, 32, 64, 128, 256, 512),
}
# ... for maps with these numbers of cells along a side.
_PUBLISHED_MAPS = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}
# Scale of the first map, then s_min and s_max of equation 4 (paper sections 3.1 and 3.4 with footnote 5).
_FRACTIONS = {
    ("voc", False): (0.10, 0.20, 0.90),
    ("voc", True): (0.07, 0.15, 0.90),
    ("coco", False): (0.07, 0.15, 0.90),
    ("coco", True): (0.04, 0.10, 0.90),
}
_LONGEST = 10  # sides of the image: the longest side of a default box that is given
_LARGE = 400  # pixels: from this size on, the fractions of the 512 models


def box_sizes(
    choice: str | Sequence[float],
    image_size: tuple[int, int],
    levels: int,
    *,
    smallest: float | None = None,
    largest: float | None = None,
) -> tuple[float, ...]:
    """Sides in pixels, one for each level and one more: the authors' table if there is one, else equation 4.

    `choice`: "voc", "coco", or the levels + 1 sides themselves. `smallest` and `largest` are s_min and s_max as shares
    of the image's side. If one of them is given, equation 4 is always used, and the other comes from `choice`. The
    first map does not count in the equation; with `smallest` its scale is half of that (paper section 3.1: 0.1 beside
    0.2). On an image that is not square, scales are shares of the shorter side, so that squares stay squares.
    """
    side = min(image_size)
    chosen = smallest is not None or largest is not None
    if not isinstance(choice, str):
        if chosen:
            raise UserError(
                "smallest_scale and largest_scale belong to equation 4, but box_sizes gives the sides themselves: "
                "leave out one or the other"
            )
        sizes = tuple(float(size) for size in choice)
        if len(sizes) != levels + 1 or any(a >= b for a, b in pairwise(sizes)) or sizes[0] <= 0:
            raise UserError(
                f"box_sizes must be {levels + 1} growing sides in pixels for {levels} maps, got {list(sizes)}"
            )
        return sizes
    if choice not in ("voc", "coco"):
        raise UserError(f"box_sizes must be 'voc', 'coco' or a list of sides in pixels, got {choice!r}")
    published = PUBLISHED_SIZES.get((choice, side)) if image_size == (side, side) else None
    if published is not None and not chosen and len(published) == levels + 1:
        return published
    first, usual, most = _FRACTIONS[choice, side >= _LARGE]
    first, smallest = (first, usual) if smallest is None else (smallest / 2, smallest)
    largest = most if largest is None else largest
    if not 0 < smallest < largest <= 1:
        raise UserError(
            "smallest_scale and largest_scale must be shares of the image's side, above 0 and at most 1, the second "
            f"larger than the first, got {smallest!r} and {largest!r}"
        )
    if levels == 1:
        return (smallest * side, largest * side)
    return tuple(share * side for share in (first, *linear_scales(levels - 1, smallest, largest)))


def steps(
    image_size: tuple[int, int], shapes: Sequence[tuple[int, int]], *, published: bool
) -> list[float | tuple[float, float]]:
    """Distance of the cells' centres of each map of `shapes` (rows, columns), in pixels.

    With `published`, and if the maps are those of SSD300 or SSD512: the authors' steps. Else (y, x), image size / map
    size, which is the paper's (i + 0.5) / |f_k| (section 2.2). The steps belong to the detector, not to the input: on a
    larger image a cell still covers the region that it was trained on.
    """
    maps = [(cells, cells) for cells in _PUBLISHED_MAPS.get(image_size[0], ())]
    if published and image_size[0] == image_size[1] and list(shapes) == maps:
        return list(PUBLISHED_STEPS[image_size[0]])
    return [(image_size[0] / rows, image_size[1] / columns) for rows, columns in shapes]


def level_groups(sizes: Sequence[float], ratios: Sequence[float] = (2.0, 3.0)) -> tuple[tuple[BoxGroup, ...], ...]:
    """One group per level: all ratios on the middle levels, only the first ratio on the first and the last two levels.

    Paper section 3.1: conv4_3, conv10_2 and conv11_2 have no boxes of ratio 3 and 1/3.
    """
    levels = len(sizes) - 1
    few = {0, levels - 2, levels - 1} if levels > 3 else {0}
    return tuple((BoxGroup(sizes[k], sizes[k + 1], tuple(ratios[:1] if k in few else ratios)),) for k in range(levels))


def refuse_others(
    sizes: str | Sequence[float], smallest: float | None, largest: float | None, ratios: Sequence[float]
) -> None:
    """Refuse the arguments that say how boxes are computed, beside boxes that are given."""
    if sizes != "voc" or smallest is not None or largest is not None or tuple(ratios) != (2.0, 3.0):
        raise UserError(
            "box_shapes gives the default boxes themselves: leave out box_sizes, smallest_scale, largest_scale and "
            "aspect_ratios, or leave out box_shapes"
        )


def used_levels(kept: Sequence[int] | None, levels: int) -> tuple[int, ...]:
    """The indices of the maps that are used: `kept`, or all of the `levels`."""
    if kept is None:
        return tuple(range(levels))
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= levels:
        raise UserError(f"source_maps must be growing indices of maps from 0 to {levels - 1}, got {list(kept)}")
    return tuple(kept)


def given_shapes(
    choice: Sequence[Sequence[Sequence[float]]], image_size: tuple[int, int], levels: int
) -> tuple[tuple[BoxShapes, ...], ...]:
    """One group per level from the [width, height] of each box of a cell, as shares of the image's shorter side.

    Raises:
        UserError: not one list for each level, a box that is not two numbers, or one that is not above 0 and at most 10
            sides of the image.
    """
    sound = all(len(box) == 2 and all(0 < side <= _LONGEST for side in box) for level in choice for box in level)
    if len(choice) != levels or not all(choice) or not sound:
        raise UserError(
            f"box_shapes must have one list for each of the {levels} maps, and in it the [width, height] of each box "
            f"of a cell, as shares of the image's shorter side above 0 and at most {_LONGEST}, got {short(choice)}"
        )
    side = min(image_size)
    return tuple((BoxShapes(tuple((width * side, height * side) for width, height in level)),) for level in choice)


def without_levels(
    groups: Sequence[tuple[BoxGroup, ...]],
    kept: Sequence[int],
    ratios: Sequence[float] = (2.0, 3.0),
    *,
    stack: bool = True,
) -> tuple[tuple[BoxGroup, ...], ...]:
    """Groups for the kept levels, tiled so that the number of boxes stays about the same (paper Table 3).

    For the settings of Table 3 (six maps; the last ones removed, or all but the second) the tiling gives the paper's
    number of boxes: 8,764, 8,942, 9,864, 9,025 and 8,664 at 300 pixels. For any other choice, boxes of a removed level
    move to the nearest finer level that is kept, else to the nearest coarser one. With `stack=False` they are left out.
    """
    levels = len(groups)
    kept = used_levels(kept, levels)
    if not stack:
        return tuple(groups[k] for k in kept)
    sizes = [level[0].size for level in groups] + [groups[-1][0].next_size or groups[-1][0].size]
    few, many = tuple(ratios[:1]), tuple(ratios)
    stacked: dict[int, list[BoxGroup]] = {k: list(groups[k]) for k in kept}
    match levels, kept:
        case 6, (0, 1, 2, 3):  # conv9_2: 6 + 6 + 4 boxes
            stacked[3] += [BoxGroup(sizes[4], sizes[5], many), *groups[5]]
        case 6, (0, 1, 2):  # conv7: 4 + 4, conv8_2: 6 + 6
            edges = _spread(sizes[1], sizes[-1], 4)
            stacked[1] = [BoxGroup(edges[0], edges[1], few), BoxGroup(edges[1], edges[2], few)]
            stacked[2] = [BoxGroup(edges[2], edges[3], many), BoxGroup(edges[3], edges[4], many)]
        case 6, (0, 1):  # conv7: three scales of 3 boxes
            edges = _spread(sizes[1], sizes[-1], 3)
            stacked[1] = [BoxGroup(edge, None, few) for edge in edges[:3]]
        case 6, (1,):  # conv7: six scales of 4 boxes
            stacked[1] = [BoxGroup(sizes[k], sizes[k + 1], few) for k in range(6)]
        case _:
            for k in sorted(set(range(levels)) - set(kept)):
                finer = [j for j in kept if j < k]
                stacked[finer[-1] if finer else kept[0]] += groups[k]
    return tuple(tuple(stacked[k]) for k in kept)


def _spread(first: float, last: float, count: int) -> list[float]:
    """`count` + 1 sides from first to last, evenly spaced (equation 4)."""
    return [first + (last - first) * k / count for k in range(count + 1)]
