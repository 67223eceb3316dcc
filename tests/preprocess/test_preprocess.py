"""Images in, boxes out and back."""

from __future__ import annotations

import cv2
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from singleshot.errors import UserError
from singleshot.ops.fit import LongestSide, ShortSide
from singleshot.preprocess import KeepAspect, Pixels, Preprocess, Stretch
from singleshot.preprocess.tensors import normalised
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


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["imagenet_rgb", "caffe_bgr"])
def test_uint8_is_resized_as_a_picture_of_8_bits(name: str, training: bool) -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    pixels = Pixels.named(name)
    for height, width in ((20, 30), (32, 48), (7, 9)):
        small = cv2.resize(image.permute(1, 2, 0).numpy(), (width, height), interpolation=cv2.INTER_LINEAR)
        expected = normalised(pixels, torch.from_numpy(small).permute(2, 0, 1))
        for kind in (image, image.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
            found = Stretch((height, width), pixels)([kind], "cpu", training).pixels[0]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        # One grey level of a float image at most: weights and results are rounded.
        floats = Stretch((height, width), PLAIN)([image.float() / 255], "cpu").pixels
        assert (Stretch((height, width), PLAIN)([image], "cpu").pixels - floats).abs().max() <= 1.01 / 255


def test_pictures_of_8_bits_lie_channels_last_unless_in_training() -> None:
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((20, 30), (31, 17))]
    for rule in (Stretch((32, 48)), KeepAspect(FIT, Pixels.named("caffe_bgr"))):
        assert rule(images, "cpu").pixels.is_contiguous(memory_format=torch.channels_last)
        assert rule(images, "cpu", training=True).pixels.is_contiguous()
        torch.testing.assert_close(rule(images, "cpu").pixels, rule(images, "cpu", training=True).pixels)


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


# --- keeping the aspect ratio

FIT = ShortSide(40, 64)


def one_box(*corners: float) -> Targets:
    return Targets(torch.tensor([[corners]]), torch.zeros(1, 1).long(), torch.zeros(1, 1).bool())


def sizes_of(keep: KeepAspect, images: list[torch.Tensor], training: bool = False) -> list[list[int]]:
    """(height, width) of each image as it lies in the batch, from its scales."""
    batch = keep(images, "cpu", training=training)
    return (batch.scales.flip(1) * batch.sizes).round().int().tolist()


def test_nominal_size_is_rounded_up_to_the_divisor() -> None:
    assert KeepAspect(ShortSide(800, 1333)).size == (800, 1344)
    assert KeepAspect(ShortSide(800, 1333), divisor=128).size == (896, 1408)  # Detectron's
    assert KeepAspect(LongestSide(600)).size == (608, 608)
    assert KeepAspect(ShortSide(800, 1333), divisor=1).size == (800, 1333)


def test_images_are_resized_and_padded_to_the_largest() -> None:
    images = [torch.rand(3, 20, 30), torch.rand(3, 90, 45), torch.rand(3, 10, 100)]
    batch = KeepAspect(FIT, PLAIN, divisor=16)(images, "cpu")
    assert batch.pixels.shape == (3, 3, 64, 64)
    for pixels, image, (h, w) in zip(batch.pixels, images, [(40, 60), (64, 32), (6, 64)], strict=True):
        resized = F.interpolate(image[None], (h, w), mode="bilinear", align_corners=False)[0]
        assert torch.equal(pixels[:, :h, :w], resized)
        assert not pixels[:, h:].any()
        assert not pixels[:, :, w:].any()
    assert batch.sizes.tolist() == [[20, 30], [90, 45], [10, 100]]
    # x, y: the exact ratio of each side, which rounding makes differ (10 * 0.64 is 6 pixels)
    expected = torch.tensor([[60 / 30, 40 / 20], [32 / 45, 64 / 90], [64 / 100, 6 / 10]])
    torch.testing.assert_close(batch.scales, expected, rtol=0, atol=0)


def test_padding_is_the_mean_colour() -> None:
    for name in ("imagenet_rgb", "caffe_bgr"):
        keep = KeepAspect(FIT, Pixels.named(name), divisor=64)
        grey = torch.tensor(keep.pixels.mean)[:, None, None].expand(3, 20, 30)
        batch = keep([grey], "cpu")
        assert batch.pixels.shape == (1, 3, 64, 64)
        assert batch.pixels[:, :, 40:].abs().max() == 0
        assert batch.pixels.abs().max() < 1e-4  # no edge where the image ends


def test_an_image_that_fits_is_only_normalised() -> None:
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    pixels = Pixels.named("caffe_bgr")
    batch = KeepAspect(FIT, pixels, divisor=1)([image], "cpu")
    torch.testing.assert_close(batch.pixels[0], normalised(pixels, image))
    assert torch.equal(batch.pixels, Stretch((40, 50), pixels)([image], "cpu").pixels)
    assert batch.scales.tolist() == [[1, 1]]


def test_kinds_of_images_may_be_mixed_when_the_aspect_is_kept() -> None:
    image = torch.randint(0, 256, (3, 20, 33), dtype=torch.uint8)
    floats = image.float() / 255
    pixels = KeepAspect(FIT)([image, floats, floats.double()], "cpu").pixels
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[0], KeepAspect(FIT)([image], "cpu").pixels[0])
    torch.testing.assert_close(pixels[1], KeepAspect(FIT)([floats], "cpu").pixels[0])
    torch.testing.assert_close(pixels[2], pixels[1])


def test_an_image_in_a_batch_is_the_image_alone_and_more_padding() -> None:
    keep = KeepAspect(FIT, divisor=8)
    images = [torch.rand(3, 20, 30), torch.rand(3, 90, 45), torch.rand(3, 7, 7)]
    together = keep(images, "cpu")
    for i, image in enumerate(images):
        alone = keep([image], "cpu")
        height, width = alone.pixels.shape[-2:]
        assert torch.equal(together.pixels[i, :, :height, :width], alone.pixels[0])
        assert not together.pixels[i, :, height:].any()
        assert not together.pixels[i, :, :, width:].any()
        assert torch.equal(together.scales[i], alone.scales[0])


@pytest.mark.parametrize("fit", [ShortSide(80, 133), LongestSide(90)])
@given(height=st.integers(1, 900), width=st.integers(1, 900), corners=st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_boxes_are_restored(fit: ShortSide | LongestSide, height: int, width: int, corners: list[float]) -> None:
    x1, x2 = sorted(corner * width for corner in corners[:2])
    y1, y2 = sorted(corner * height for corner in corners[2:])
    keep: Preprocess = KeepAspect(fit)
    batch = keep([torch.zeros(3, height, width), torch.zeros(3, 31, 47)], "cpu")
    given_boxes = torch.tensor([[[x1, y1, x2, y2]], [[1.0, 2.0, 30.0, 31.0]]])
    there = keep.targets(Targets(given_boxes, torch.zeros(2, 1).long(), torch.zeros(2, 1).bool()), batch)
    h, w = fit(height, width)
    assert (there.boxes[0] <= torch.tensor([w, h, w, h]) * (1 + 1e-6)).all()
    back = keep.restore(Detections(there.boxes, torch.ones(2, 1), torch.zeros(2, 1).long()), batch)
    torch.testing.assert_close(back.boxes, given_boxes, rtol=0, atol=1e-4)


def test_what_lies_in_the_padding_is_cut_or_no_detection() -> None:
    keep = KeepAspect(FIT, PLAIN)
    batch = keep([torch.rand(3, 20, 30)], "cpu")  # 40 x 60 of 64 x 64
    boxes = torch.tensor([[[50.0, 30.0, 64.0, 64.0], [10.0, 45.0, 30.0, 60.0], [-4.0, 2.0, 10.0, 10.0]]])
    found = keep.restore(Detections(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0, 1, 2]])), batch)
    (only,) = found.to_list()
    assert only["boxes"].tolist() == [[25, 15, 30, 20], [0, 1, 5, 5]]
    assert only["labels"].tolist() == [0, 2]
    assert only["scores"].tolist() == pytest.approx([0.9, 0.7])


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (2, 3000)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    keep = KeepAspect(ShortSide(80, 133))
    batch = keep([torch.rand(3, *size)], "cpu")
    assert min(batch.pixels.shape) > 0
    assert batch.pixels.isfinite().all()
    height, width = size
    there = keep.targets(one_box(0, 0, width, height), batch).boxes
    assert (there[..., 2:] > 0).all()
    back = keep.restore(Detections(there, torch.ones(1, 1), torch.zeros(1, 1).long()), batch).boxes
    torch.testing.assert_close(back, torch.tensor([[[0.0, 0.0, width, height]]]))


def test_jitter_draws_every_short_side_in_training_only() -> None:
    keep = KeepAspect(ShortSide(40, 90), PLAIN, jitter=(32, 36))
    images = [torch.rand(3, 60, 90)] * 60 + [torch.rand(3, 90, 60)] * 60
    torch.manual_seed(0)
    sizes = sizes_of(keep, images, training=True)
    assert {min(size) for size in sizes[:60]} == {32, 33, 34, 35, 36} == {min(size) for size in sizes[60:]}
    assert all(height < width for height, width in sizes[:60])
    assert all(abs(max(size) - 1.5 * min(size)) <= 0.5 for size in sizes)
    assert sizes_of(keep, images[:1]) == [[40, 60]]
    assert keep.size == (64, 96)  # the usual input is that of a test


def test_jitter_obeys_the_longest_side_and_the_cpu_generator() -> None:
    keep = KeepAspect(ShortSide(40, 64), PLAIN, jitter=(32, 48))
    images = [torch.rand(3, 60, 90) for _ in range(40)]
    torch.manual_seed(3)
    first = sizes_of(keep, images, training=True)
    assert max(max(size) for size in first) == 64
    state = torch.get_rng_state()
    second = sizes_of(keep, images, training=True)
    assert second != first
    torch.set_rng_state(state)
    assert sizes_of(keep, images, training=True) == second


def test_jitter_takes_an_image_of_a_drawn_size_as_it_is() -> None:
    keep = KeepAspect(ShortSide(40, 64), PLAIN, divisor=1, jitter=(32, 48))
    images = [torch.rand(3, *size) for size in ((33, 50), (48, 48), (20, 64), (64, 40))]
    state = torch.get_rng_state()
    for image in images:
        assert torch.equal(keep([image], "cpu", training=True).pixels[0], image)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn
    assert sizes_of(keep, [torch.rand(3, 33, 50)]) == [[40, 61]]  # in a test it is resized


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"divisor": 0}, "divisor: expected a whole number, 1 or more, got 0"),
        ({"divisor": 32.5}, "got 32.5"),
        ({"jitter": (640,)}, r"expected two short sides, such as \[640, 800\], got \[640\]"),
        ({"jitter": (60, 50)}, "two short sides, the smaller one first"),
        ({"jitter": (50, 65)}, "but the longest side is limited to 64"),
        ({"jitter": (50, 60), "fit": LongestSide(64)}, "jitter draws the short side"),
    ],
)
def test_choices_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KeepAspect(**{"fit": FIT, **arguments})  # type: ignore[arg-type]


def test_the_layout_of_one_image_is_what_it_becomes() -> None:
    for preprocess in (Stretch((48, 80)), KeepAspect(ShortSide(64, 100)), KeepAspect(LongestSide(50), divisor=8)):
        for height, width in ((30, 40), (100, 20), (64, 64)):
            batch = preprocess([torch.rand(3, height, width)], "cpu")
            assert preprocess.layout([(height, width)])[1] == tuple(batch.pixels.shape[-2:])
