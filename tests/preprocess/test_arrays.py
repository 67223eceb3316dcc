"""The form of arrays gives what the form of tensors gives, and needs no PyTorch."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from singleshot.errors import UserError
from singleshot.ops.fit import LongestSide, ShortSide, TorchvisionShortSide
from singleshot.preprocess import KeepAspect, Pixels, Stretch, arrays
from singleshot.preprocess.rules import _Scales
from singleshot.structures import Detections

CAFFE = Pixels.named("caffe_bgr")
RULES = [
    Stretch((60, 90)),
    Stretch((64, 64), CAFFE),
    KeepAspect(ShortSide(50, 80)),
    KeepAspect(LongestSide(64), CAFFE, divisor=1),
    KeepAspect(TorchvisionShortSide(37, 60), divisor=16),
]


def pictures(seed: int, number: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), dtype=np.uint8) for _ in range(number)]


def as_tensors(images: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_pixels_sizes_scales_and_limits_are_those_of_tensors(rule: _Scales, seed: int) -> None:
    images = pictures(seed)
    found, expected = arrays.prepared(rule, images), rule(as_tensors(images), "cpu")
    for name in ("sizes", "scales", "limits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name).numpy())
    assert found.pixels.dtype == np.float32
    apart = np.abs(found.pixels - expected.pixels.numpy()).max((0, 2, 3)) * np.array(rule.pixels.std)
    assert apart.max() < 1e-6  # the same 8 bits, normalised with another rounding


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_arranged_are_the_8_bits_that_prepared_normalises(rule: _Scales) -> None:
    images = pictures(7)
    batch, prepared = arrays.arranged(rule, images), arrays.prepared(rule, images)
    assert batch.pixels.dtype == np.uint8
    assert batch.pixels.shape == (3, *prepared.pixels.shape[2:], 3)
    for name in ("sizes", "scales", "limits"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(prepared, name))
    mean, std = (np.asarray(numbers, np.float32) for numbers in (rule.pixels.mean, rule.pixels.std))
    values = (batch.pixels / np.float32(255) - mean) / std
    values = values[..., ::-1] if rule.pixels.order == "bgr" else values
    for values_of, pixels, (h, w) in zip(values, prepared.pixels, batch.limits.round().astype(int), strict=True):
        np.testing.assert_allclose(values_of[:h, :w], pixels[:, :h, :w].transpose(1, 2, 0), atol=1e-4)
        assert not pixels[:, h:].any()
        assert not pixels[:, :, w:].any()


def test_float_pictures_are_resized_as_floats_and_then_rounded() -> None:
    image = np.random.default_rng(3).random((50, 40, 3), np.float32)
    found = arrays.arranged(Stretch((20, 30)), [image]).pixels[0]
    expected = cv2.resize(image, (30, 20), interpolation=cv2.INTER_LINEAR) * 255
    assert np.abs(found - expected).max() <= 0.501


def test_a_picture_that_a_canvas_cannot_hold() -> None:
    with pytest.raises(UserError, match="export the model for a size in which both portraits and landscapes fit"):
        arrays.arranged(KeepAspect(ShortSide(50, 80)), [np.zeros((90, 60, 3), np.uint8)], (64, 96))


def test_an_image_of_the_right_size_is_bit_equal() -> None:
    images = [np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)]
    rule = Stretch((60, 90))
    np.testing.assert_array_equal(arrays.arranged(rule, images).pixels, images)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_boxes_come_back_as_those_of_tensors(rule: _Scales) -> None:
    images = pictures(5)
    found, expected = arrays.prepared(rule, images), rule(as_tensors(images), "cpu")
    rng = np.random.default_rng(6)
    corners = rng.uniform(-20, 120, (3, 7, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(2), corners.max(2)], -1)
    scores = rng.uniform(0.1, 1, (3, 7)).astype(np.float32)
    ours = arrays.restored(boxes, scores, found, padded=rule.padded)
    theirs = rule.restore(
        Detections(torch.from_numpy(boxes), torch.from_numpy(scores), torch.zeros(3, 7, dtype=torch.int64)), expected
    )
    np.testing.assert_array_equal(ours[0], theirs.boxes.numpy())
    np.testing.assert_array_equal(ours[1], theirs.scores.numpy())


def test_what_was_found_in_the_padding_alone_is_no_detection() -> None:
    rule = KeepAspect(LongestSide(64))
    batch = arrays.prepared(rule, [np.zeros((32, 64, 3), np.uint8)])
    inside, beside = [10.0, 10, 20, 20], [10.0, 40, 20, 60]
    found = arrays.restored(np.array([[inside, beside]], np.float32), np.ones((1, 2), np.float32), batch, padded=True)
    assert found[1].tolist() == [[1, 0]]


def test_needs_no_pytorch() -> None:
    program = (
        "import sys, numpy as np\n"
        "from singleshot.preprocess import KeepAspect, arrays\n"
        "from singleshot.ops.fit import ShortSide\n"
        "arrays.prepared(KeepAspect(ShortSide(40, 60)), [np.zeros((30, 50, 3), np.uint8)])\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
