"""SSD's default boxes: equation 4, order, clip, boundary."""

from __future__ import annotations

import math

import pytest
import reference
import torch

from singleshot.anchors import BoxGroup, DefaultBoxes, inside, linear_scales

MAPS_300 = [(side, side) for side in (38, 19, 10, 5, 3, 1)]


def one_level(group: BoxGroup, **options: object) -> DefaultBoxes:
    return DefaultBoxes([[group]], **options)  # type: ignore[arg-type]


def test_order_in_a_cell_is_the_authors() -> None:
    """The small square, the square between two scales, then each ratio and its inverse."""
    side, wide, tall = math.sqrt(30 * 60), 30 * math.sqrt(2), 30 / math.sqrt(2)
    expected = [(30, 30), (side, side), (wide, tall), (tall, wide)]
    torch.testing.assert_close(torch.tensor(BoxGroup(30, 60, (2.0,)).shapes()), torch.tensor(expected))
    widths = [width for width, _ in BoxGroup(60, 111, (2.0, 3.0)).shapes()]
    assert widths == pytest.approx([60, math.sqrt(60 * 111), 84.8528, 42.4264, 103.923, 34.641], rel=1e-5)
    assert len(BoxGroup(60, 111, (2.0, 3.0))) == 6
    assert len(BoxGroup(60, None, (2.0,))) == 3
    assert len(BoxGroup(60, 111, ())) == 2


def test_ratio_is_width_over_height_and_keeps_the_area() -> None:
    for (width, height), ratio in zip(BoxGroup(50, None, (2.0, 3.0)).shapes()[1:], (2, 1 / 2, 3, 1 / 3), strict=True):
        assert width / height == pytest.approx(ratio)
        assert width * height == pytest.approx(2500)


def test_first_boxes_of_ssd300_by_hand() -> None:
    anchors = one_level(BoxGroup(30, 60, (2.0,)), steps=(8,))([(38, 38)], (300, 300))
    half = math.sqrt(1800) / 2
    wide, tall = 15 * math.sqrt(2), 15 / math.sqrt(2)
    expected = torch.tensor(
        [
            [4 - 15, 4 - 15, 4 + 15, 4 + 15],
            [4 - half, 4 - half, 4 + half, 4 + half],
            [4 - wide, 4 - tall, 4 + wide, 4 + tall],
            [4 - tall, 4 - wide, 4 + tall, 4 + wide],
            [12 - 15, 4 - 15, 12 + 15, 4 + 15],  # the next cell: one column on, same row
        ]
    )
    torch.testing.assert_close(anchors.boxes[:5], expected)
    torch.testing.assert_close(anchors.boxes[38 * 4], torch.tensor([4 - 15.0, 12 - 15, 4 + 15, 12 + 15]))  # second row


@pytest.mark.parametrize("steps", [None, (8.0, 16.0, 32.0)])
@pytest.mark.parametrize("image", [(300, 300), (200, 333)])
def test_equals_the_slow_form(steps: tuple[float, ...] | None, image: tuple[int, int]) -> None:
    maps, sizes, ratios = [(5, 7), (3, 4), (1, 2)], [30.0, 60.0, 111.0, 162.0], [(2.0,), (2.0, 3.0), ()]
    levels = [[BoxGroup(sizes[k], sizes[k + 1], ratios[k])] for k in range(3)]
    anchors = DefaultBoxes(levels, steps=steps)(maps, image)
    expected = reference.default_boxes(sizes, maps, image, ratios, steps)
    torch.testing.assert_close(anchors.boxes, torch.tensor(expected))
    assert anchors.boxes.dtype == torch.float32
    assert anchors.counts == (5 * 7 * 4, 3 * 4 * 6, 2 * 2)
    assert DefaultBoxes(levels).per_location == (4, 6, 2)


def test_several_groups_of_one_level_follow_each_other() -> None:
    groups = [BoxGroup(10, None, ()), BoxGroup(20, None, ())]
    anchors = DefaultBoxes([groups])([(1, 2)], (10, 20))
    sides = anchors.boxes[:, 2] - anchors.boxes[:, 0]
    assert sides.tolist() == [10, 20, 10, 20]
    assert DefaultBoxes([groups]).per_location == (2,)


def test_centres_without_steps_are_at_shares_of_the_image() -> None:
    """(i + 0.5) / |f_k|, in each direction for itself."""
    boxes = one_level(BoxGroup(10, None, ()))([(2, 3)], (100, 90)).boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(
        centres, torch.tensor([[15.0, 25.0], [45.0, 25.0], [75.0, 25.0], [15.0, 75.0], [45.0, 75.0], [75.0, 75.0]])
    )


def test_clip_is_off_by_default_and_cuts_at_the_border() -> None:
    group = BoxGroup(100, None, (2.0,))
    free = one_level(group)([(2, 2)], (80, 120)).boxes
    assert free.min() < 0
    clipped = one_level(group, clip=True)([(2, 2)], (80, 120)).boxes
    limit = torch.tensor([120.0, 80.0, 120.0, 80.0])
    torch.testing.assert_close(clipped, free.clamp(min=0).minimum(limit))


def test_ports_clip_centres_and_sizes_one_by_one() -> None:
    """By hand: two cells of 64 pixels on an image of 100 x 60, whose second centre lies at 96; boxes of 80 x 80."""
    group = BoxGroup(80, None, ())
    made = {
        clip: one_level(group, steps=(64,), clip=clip)([(1, 2)], (60, 90)).boxes[1].tolist()
        for clip in (False, "sizes", "centres_and_sizes")
    }
    assert made[False] == [96 - 40, 32 - 40, 96 + 40, 32 + 40]
    assert made["sizes"] == [96 - 40, 32 - 30, 96 + 40, 32 + 30]  # the height of 80 is more than the image's 60
    assert made["centres_and_sizes"] == [90 - 40, 32 - 30, 90 + 40, 32 + 30]


@pytest.mark.parametrize("clip", [False, True])
def test_boundary_boxes_take_no_part(clip: bool) -> None:
    maker = one_level(BoxGroup(30, 60, (2.0,)), steps=(8,), boundary=False, clip=clip)
    anchors = maker([(38, 38)], (300, 300))
    assert anchors.usable is not None
    free = one_level(BoxGroup(30, 60, (2.0,)), steps=(8,))([(38, 38)], (300, 300))
    assert free.usable is None  # all do
    expected = [min(box) >= 0 and max(box) <= 300 for box in free.boxes.tolist()]
    assert anchors.usable.tolist() == expected
    assert 0 < sum(expected) < len(expected)
    assert len(anchors.boxes) == len(free.boxes)  # they stay in their places: predictions are counted by them


def test_a_box_that_touches_the_border_is_inside() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.0, 10.1], [0.0, 0.0, 20.1, 10.0], [-0.1, 0.0, 5.0, 5.0]]
    )
    assert inside(boxes, (10, 20)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 6, 9])
def test_equation_4(levels: int) -> None:
    scales = linear_scales(levels)
    assert len(scales) == levels + 1  # one more, for the square after the last
    assert scales[:levels] == pytest.approx(reference.equation_4(levels, 0.2, 0.9))


def test_equation_4_by_hand() -> None:
    assert linear_scales(6) == pytest.approx([0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.04])
    assert linear_scales(3, 0.1, 0.5) == pytest.approx([0.1, 0.3, 0.5, 0.7])


def test_wrong_numbers_of_maps_and_steps() -> None:
    with pytest.raises(ValueError, match="expected 1 maps, got 2"):
        one_level(BoxGroup(30))([(2, 2), (1, 1)], (10, 10))
    with pytest.raises(ValueError, match="one number for each"):
        one_level(BoxGroup(30), steps=(8, 16))
    with pytest.raises(ValueError, match="at least one map"):
        linear_scales(0)
