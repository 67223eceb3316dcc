"""Images in, boxes out and back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from singleshot.preprocess import Pixels, Stretch
from singleshot.structures import Detections, Targets

PLAIN = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_resizes_whatever_the_shape_is() -> None:
    images = [torch.rand(3, 10, 40), torch.rand(3, 77, 21)]
    batch = Stretch((32, 48), PLAIN)(images, "cpu")
    assert batch.pixels.shape == (2, 3, 32, 48)
    expected = F.interpolate(images[1][None], (32, 48), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(batch.pixels[1], expected)
    assert batch.sizes.tolist() == [[10, 40], [77, 21]]  # height, width
    torch.testing.assert_close(batch.scales, torch.tensor([[48 / 40, 32 / 10], [48 / 21, 32 / 77]]))  # x, y


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = torch.rand(3, 32, 48)
    assert torch.equal(Stretch((32, 48), PLAIN)([image], "cpu").pixels[0], image)


def test_uint8_is_the_float_image_in_0_to_1() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    for size in ((20, 30), (32, 48), (7, 9)):
        stretch = Stretch(size)
        assert torch.equal(stretch([image], "cpu").pixels, stretch([image.float() / 255], "cpu").pixels)


def test_kinds_of_images_may_be_mixed_in_a_batch() -> None:
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    kinds = [image, image.float() / 255, image.double() / 255, image.half() / 255]
    pixels = Stretch((16, 16))(kinds, "cpu").pixels
    assert pixels.dtype == torch.float32
    for other in pixels[1:]:
        torch.testing.assert_close(other, pixels[0], rtol=1e-2, atol=1e-2)


def test_imagenet_normalisation_by_hand() -> None:
    image = torch.tensor([0.485, 0.456 + 0.224, 0.406 - 2 * 0.225])[:, None, None].expand(3, 4, 4)
    pixels = Stretch((4, 4), Pixels.named("imagenet_rgb"))([image], "cpu").pixels
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([0.0, 1.0, -2.0]))


def test_caffe_normalisation_by_hand() -> None:
    """Blue first, 0 to 255, means 104, 117, 123, no division."""
    image = torch.tensor([200, 150, 100], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    pixels = Stretch((4, 4), Pixels.named("caffe_bgr"))([image], "cpu").pixels
    torch.testing.assert_close(
        pixels[0, :, 0, 0], torch.tensor([100.0 - 104, 150.0 - 117, 200.0 - 123]), rtol=1e-4, atol=1e-3
    )


def test_the_mean_becomes_zero() -> None:
    for name in ("imagenet_rgb", "caffe_bgr"):
        pixels = Pixels.named(name)
        image = torch.tensor(pixels.mean)[:, None, None].expand(3, 5, 5)
        assert Stretch((8, 8), pixels)([image], "cpu").pixels.abs().max() < 1e-4


def test_pixels_by_name_numbers_and_object() -> None:
    given_numbers = Pixels.named(([0.1, 0.2, 0.3], [1, 2, 3], "bgr"))
    assert given_numbers == Pixels((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")
    assert Pixels.named(given_numbers) is given_numbers


@pytest.mark.parametrize(
    "choice",
    ["caffe", ((0.1, 0.2), (1, 1, 1), "rgb"), ((0, 0, 0), (1, 1, 0), "rgb"), ((0, 0, 0), (1, 1, 1), "gbr"), 3, (1, 2)],
)
def test_unknown_pixels(choice: object) -> None:
    with pytest.raises(ValueError, match="pixels must be"):
        Pixels.named(choice)  # type: ignore[arg-type]


def test_boxes_there_and_back() -> None:
    stretch = Stretch((100, 200), PLAIN)
    batch = stretch([torch.rand(3, 50, 400), torch.rand(3, 200, 100)], "cpu")
    boxes = torch.tensor([[[40.0, 10.0, 200.0, 50.0]], [[0.0, 0.0, 100.0, 200.0]]])
    targets = stretch.targets(Targets(boxes, torch.zeros(2, 1).long(), torch.zeros(2, 1).bool()), batch)
    assert targets.boxes.tolist() == [[[20, 20, 100, 100]], [[0, 0, 200, 100]]]
    found = Detections(targets.boxes, torch.ones(2, 1), torch.zeros(2, 1).long())
    torch.testing.assert_close(stretch.restore(found, batch).boxes, boxes)


@given(height=st.integers(1, 900), width=st.integers(1, 900), corners=st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_box_inside_comes_back(height: int, width: int, corners: list[float]) -> None:
    x1, x2 = sorted(corner * width for corner in corners[:2])
    y1, y2 = sorted(corner * height for corner in corners[2:])
    box = torch.tensor([[[x1, y1, x2, y2]]])
    stretch = Stretch((64, 96), PLAIN)
    batch = stretch([torch.zeros(3, height, width)], "cpu")
    there = stretch.targets(Targets(box, torch.zeros(1, 1).long(), torch.zeros(1, 1).bool()), batch).boxes
    assert there.min() >= 0
    assert (there <= torch.tensor([96.0, 64, 96, 64]) * 1.0001).all()
    back = stretch.restore(Detections(there, torch.ones(1, 1), torch.zeros(1, 1).long()), batch).boxes
    torch.testing.assert_close(back, box, rtol=1e-4, atol=1e-3)


def test_boxes_come_back_cut_at_the_border_of_their_image() -> None:
    stretch = Stretch((100, 100), PLAIN)
    batch = stretch([torch.rand(3, 50, 200)], "cpu")
    found = Detections(torch.tensor([[[-10.0, -10.0, 120.0, 90.0]]]), torch.ones(1, 1), torch.zeros(1, 1).long())
    torch.testing.assert_close(stretch.restore(found, batch).boxes, torch.tensor([[[0.0, 0.0, 200.0, 45.0]]]))


def test_no_boxes() -> None:
    stretch = Stretch((10, 10), PLAIN)
    batch = stretch([torch.rand(3, 5, 5)], "cpu")
    assert stretch.targets(
        Targets.from_list([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}]), batch
    ).boxes.shape == (1, 0, 4)
