"""The anchors of a feature pyramid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from singleshot.anchors import AnchorGenerator, octave_sizes
from singleshot.errors import UserError

STRIDES = (8, 16, 32, 64, 128)
SIZES = octave_sizes([4.0 * stride for stride in STRIDES], 3)


def shapes(height: int, width: int) -> list[tuple[int, int]]:
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]


def sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]


@pytest.mark.parametrize(
    ("size", "count"), [((800, 1344), 201_600), ((608, 1024), 116_712), ((512, 512), 49_104), ((640, 640), 76_725)]
)
def test_published_counts(size: tuple[int, int], count: int) -> None:
    anchors = AnchorGenerator(STRIDES, SIZES)(shapes(*size), size)
    assert anchors.boxes.shape == (count, 4)
    assert sum(anchors.counts) == count
    assert anchors.boxes.dtype == torch.float32


@pytest.mark.parametrize(("octaves", "ratios"), [(1, 1), (2, 1), (2, 3), (3, 3), (4, 3)])
def test_table_1c(octaves: int, ratios: int) -> None:
    chosen = (1.0,) if ratios == 1 else (0.5, 1.0, 2.0)
    generator = AnchorGenerator(STRIDES, octave_sizes([32, 64, 128, 256, 512], octaves), chosen)
    assert generator.per_location == (octaves * ratios,) * 5


def test_first_cell_by_hand() -> None:
    boxes = AnchorGenerator([8], [[32, 40]], [0.5, 2.0])([(2, 2)], (16, 16)).boxes
    wide, tall = 32 * math.sqrt(2) / 2, 32 / math.sqrt(2) / 2
    # Ratios first, sizes within them; ratio is height / width.
    torch.testing.assert_close(boxes[0], torch.tensor([-wide, -tall, wide, tall]))
    torch.testing.assert_close(boxes[1], torch.tensor([-wide, -tall, wide, tall]) * 40 / 32)
    torch.testing.assert_close(boxes[2], torch.tensor([-tall, -wide, tall, wide]))
    # The next cell to the right, then the next row.
    torch.testing.assert_close(boxes[4] - boxes[0], torch.tensor([8.0, 0, 8, 0]))
    torch.testing.assert_close(boxes[8] - boxes[0], torch.tensor([0.0, 8, 0, 8]))


@pytest.mark.parametrize("convention", ["corner", "centre"])
def test_ratio_keeps_the_area(convention: str) -> None:
    boxes = AnchorGenerator([8], [[32.0]], [0.5, 1.0, 2.0], convention=convention)([(1, 1)], (8, 8)).boxes  # type: ignore[arg-type]
    width, height = sides(boxes).unbind(1)
    torch.testing.assert_close(width * height, torch.full((3,), 1024.0))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]))


@pytest.mark.parametrize(
    ("convention", "first"), [("corner", 0.0), ("centre", 4.0), ("torchvision", 0), ("legacy", 4), ("whole_pixels", 4)]
)
def test_where_cells_are_centred(convention: str, first: float) -> None:
    boxes = AnchorGenerator([8], [[32.0]], [1.0], convention=convention)([(2, 3)], (16, 24)).boxes  # type: ignore[arg-type]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    expected = [[first + 8 * column, first + 8 * row] for row in range(2) for column in range(3)]
    assert centres.tolist() == expected


def test_torchvision_cuts_sizes_and_rounds_corners() -> None:
    """32 * 2^(1/3) = 40.3 and 32 * 2^(2/3) = 50.8 are taken as 40 and 50."""
    boxes = AnchorGenerator([8], octave_sizes([32], 3), [0.5, 1.0, 2.0], convention="torchvision")([(1, 1)], (8, 8))
    expected = [[-23, -11, 23, 11], [-28, -14, 28, 14], [-35, -18, 35, 18], [-16, -16, 16, 16], [-20, -20, 20, 20]]
    assert boxes.boxes[:5].tolist() == expected


def test_legacy_is_detectrons_whole_pixel_boxes() -> None:
    """Its table for stride 16 and scales 8, 16, 32 is known: inclusive corners around (7.5, 7.5)."""
    boxes = AnchorGenerator([16], [[128, 256, 512]], [0.5, 1.0, 2.0], convention="legacy")([(1, 1)], (16, 16)).boxes
    inclusive = boxes - torch.tensor([0.0, 0, 1, 1])
    expected = [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
    assert inclusive.tolist() == expected


def test_octaves() -> None:
    assert octave_sizes([32, 64], 1) == ((32,), (64,))
    assert octave_sizes([32], 3)[0] == pytest.approx((32, 40.317, 50.797), abs=1e-3)


def test_whole_pixels_rounds_the_corners() -> None:
    """mmdetection before 2: boxes of pixels from x1 to x2, both counted, with corners rounded around a whole cell."""
    boxes = AnchorGenerator([8], octave_sizes([32], 3), convention="whole_pixels")([(1, 2)], (8, 16)).boxes
    expected = []
    for left in (0, 8):
        for ratio in (0.5, 1.0, 2.0):
            for size in (32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)):
                width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
                x1, y1 = round(3.5 - (width - 1) / 2) + left, round(3.5 - (height - 1) / 2)
                x2, y2 = round(3.5 + (width - 1) / 2) + left, round(3.5 + (height - 1) / 2)
                expected.append([x1, y1, x2 + 1, y2 + 1])  # the last pixel ends where the next one begins
    assert boxes.tolist() == expected


@pytest.mark.parametrize(
    ("strides", "sizes", "ratios", "convention"),
    [
        ([8], [[32], [64]], [1.0], "corner"),
        ([8], [[]], [1.0], "corner"),
        ([8], [[32]], [], "corner"),
        ([8], [[-1]], [1.0], "corner"),
        ([8], [[32]], [0.0], "corner"),
        ([8], [[32]], [1.0], "middle"),
    ],
)
def test_nonsense_is_refused(
    strides: list[int], sizes: list[list[float]], ratios: list[float], convention: str
) -> None:
    with pytest.raises(UserError, match=r"levels|positive|convention"):
        AnchorGenerator(strides, sizes, ratios, convention=convention)  # type: ignore[arg-type]


def test_wrong_number_of_maps() -> None:
    with pytest.raises(ValueError, match="expected 5 maps, got 1"):
        AnchorGenerator(STRIDES, SIZES)([(2, 2)], (16, 16))
