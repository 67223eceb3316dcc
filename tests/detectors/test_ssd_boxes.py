"""The published tables of default boxes, equation 4 for everything else, and Table 3's tilings."""

from __future__ import annotations

import pytest
import reference
import torch

from singleshot.anchors import BoxGroup, DefaultBoxes
from singleshot.detectors.ssd_boxes import PUBLISHED_STEPS, box_sizes, level_groups, without_levels
from singleshot.errors import UserError

MAPS = {300: [(s, s) for s in (38, 19, 10, 5, 3, 1)], 512: [(s, s) for s in (64, 32, 16, 8, 4, 2, 1)]}
RATIOS = {300: [(2,), (2, 3), (2, 3), (2, 3), (2,), (2,)], 512: [(2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)]}

# Smaller sides, larger sides: the authors' four published tables.
TABLES = {
    ("voc", 300): ([30, 60, 111, 162, 213, 264], [60, 111, 162, 213, 264, 315]),
    ("coco", 300): ([21, 45, 99, 153, 207, 261], [45, 99, 153, 207, 261, 315]),
    ("voc", 512): ([35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8], [76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6]),
    ("coco", 512): (
        [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8],
        [51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72],
    ),
}
TOTALS = {300: [5776, 2166, 600, 150, 36, 4], 512: [16384, 6144, 1536, 384, 96, 16, 4]}


@pytest.mark.parametrize(("choice", "side"), TABLES)
def test_the_published_tables(choice: str, side: int) -> None:
    smaller, larger = TABLES[choice, side]
    sizes = box_sizes(choice, (side, side), len(MAPS[side]))
    assert list(sizes[:-1]) == smaller
    assert list(sizes[1:]) == larger


@pytest.mark.parametrize(("choice", "side"), TABLES)
def test_all_boxes_of_the_published_settings_equal_the_slow_form(choice: str, side: int) -> None:
    smaller, larger = TABLES[choice, side]
    steps = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}[side]
    assert PUBLISHED_STEPS[side] == steps
    groups = level_groups(box_sizes(choice, (side, side), len(MAPS[side])))
    anchors = DefaultBoxes(groups, steps=PUBLISHED_STEPS[side])(MAPS[side], (side, side))
    expected = reference.default_boxes([*smaller, larger[-1]], MAPS[side], (side, side), RATIOS[side], steps)
    assert len(anchors.boxes) == sum(TOTALS[side]) == {300: 8732, 512: 24564}[side]
    assert list(anchors.counts) == TOTALS[side]
    torch.testing.assert_close(anchors.boxes, torch.tensor(expected), rtol=1e-5, atol=1e-3)


def test_the_tables_follow_from_the_authors_whole_percents() -> None:
    """Percent 20..90 with the step rounded down; 10% (COCO: 15..90 and 7%) on the first map."""
    for choice, first, low in (("voc", 10, 20), ("coco", 7, 15)):
        step = (90 - low) // 4
        percents = [first, *(low + step * k for k in range(6))]
        assert list(box_sizes(choice, (300, 300), 6)) == [300 * percent / 100 for percent in percents]


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize(
    ("choice", "side", "first", "smallest"),
    [("voc", 320, 0.1, 0.2), ("coco", 320, 0.07, 0.15), ("voc", 640, 0.07, 0.15), ("coco", 640, 0.04, 0.1)],
)
def test_equation_4_for_any_number_of_maps(choice: str, side: int, first: float, smallest: float, levels: int) -> None:
    sizes = box_sizes(choice, (side, side), levels)
    assert len(sizes) == levels + 1
    assert sizes[0] == pytest.approx(first * side)
    expected = [side * scale for scale in reference.equation_4(levels - 1, smallest, 0.9)]
    assert sizes[1:-1] == pytest.approx(expected)
    assert sizes[-1] - sizes[-2] == pytest.approx((sizes[-2] - sizes[-3]) if levels > 2 else 0.9 * side - sizes[-2])


def test_one_map() -> None:
    assert box_sizes("voc", (100, 100), 1) == pytest.approx((20, 90))


def test_sizes_are_shares_of_the_shorter_side() -> None:
    assert box_sizes("voc", (200, 640), 5) == box_sizes("voc", (200, 200), 5)


def test_the_table_needs_its_number_of_maps() -> None:
    assert len(box_sizes("voc", (300, 300), 5)) == 6
    assert box_sizes("voc", (300, 400), 6)[1:] != TABLES["voc", 300][1]


def test_sizes_of_ones_own() -> None:
    assert box_sizes([10, 20, 40], (300, 300), 2) == (10.0, 20.0, 40.0)


@pytest.mark.parametrize("choice", ["pascal", [10, 20], [10, 20, 20], [20, 10, 30], [0, 10, 20], [10, 20, 30, 40]])
def test_wrong_sizes(choice: object) -> None:
    with pytest.raises(UserError, match="box_sizes must be"):
        box_sizes(choice, (300, 300), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((2.0, 3.0), [4, 6, 6, 6, 4, 4]),  # Table 2: all
        ((2.0,), [4, 4, 4, 4, 4, 4]),  # without 1/3 and 3
        ((), [2, 2, 2, 2, 2, 2]),  # also without 1/2 and 2
    ],
)
def test_ratios_of_table_2(ratios: tuple[float, ...], expected: list[int]) -> None:
    groups = level_groups(box_sizes("voc", (300, 300), 6), ratios)
    assert list(DefaultBoxes(groups).per_location) == expected


@pytest.mark.parametrize(
    ("kept", "total"),
    [
        ((0, 1, 2, 3, 4, 5), 8732),
        ((0, 1, 2, 3, 4), 8764),
        ((0, 1, 2, 3), 8942),
        ((0, 1, 2), 9864),
        ((0, 1), 9025),
        ((1,), 8664),
    ],
)
def test_table_3(kept: tuple[int, ...], total: int) -> None:
    groups = without_levels(level_groups(box_sizes("voc", (300, 300), 6)), kept)
    maps = [MAPS[300][k] for k in kept]
    anchors = DefaultBoxes(groups, steps=[PUBLISHED_STEPS[300][k] for k in kept])(maps, (300, 300))
    assert len(anchors.boxes) == total
    sides = (anchors.boxes[:, 2:] - anchors.boxes[:, :2]).prod(1).sqrt()
    assert sides.max() > 200  # large objects are still looked for, however few maps are left
    assert sides.min() <= 60.1


def test_other_choices_stack_a_removed_level_on_the_nearest_finer_one() -> None:
    groups = level_groups(box_sizes("voc", (512, 512), 7))
    kept = without_levels(groups, (1, 2, 4))
    assert kept == ((*groups[1], *groups[0]), (*groups[2], *groups[3]), (*groups[4], *groups[5], *groups[6]))


@pytest.mark.parametrize("kept", [(), (1, 0), (0, 0), (-1, 2), (0, 6)])
def test_wrong_maps(kept: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="source_maps must be growing indices of maps from 0 to 5"):
        without_levels(level_groups(box_sizes("voc", (300, 300), 6)), kept)


def test_few_levels() -> None:
    assert level_groups([10, 20, 30, 40]) == (
        (BoxGroup(10, 20, (2.0,)),),
        (BoxGroup(20, 30, (2.0, 3.0)),),
        (BoxGroup(30, 40, (2.0, 3.0)),),
    )


def test_levels_without_stacking_keep_their_own_boxes_alone() -> None:
    groups = level_groups(box_sizes("voc", (300, 300), 6))
    assert without_levels(groups, (0, 2), stack=False) == (groups[0], groups[2])
