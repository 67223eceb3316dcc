"""What every detector has to keep: its export, made with two images, takes any number of them and gives the same."""

from __future__ import annotations

import torch
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.detectors.whole import Whole

MOST = 64  # images of a batch that the graph is made for


def assert_exports(detector: Detector, batches: tuple[int, ...] = (1, 2, 5)) -> None:
    """`torch.export` takes the whole detector with a free batch size, and the graph gives what eager gives."""
    whole, (height, width) = Whole(detector).eval(), detector.image_size
    batch = torch.export.Dim("batch", min=1, max=MOST)
    with torch.no_grad():
        example = inputs(2, height, width)
        program = torch.export.export(whole, example, dynamic_shapes=({0: batch}, {0: batch})).module()
        for number in batches:
            pixels, limits = inputs(number, height, width)
            assert_same_detections(program(pixels, limits), whole(pixels, limits))


def inputs(number: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Noise, and limits that differ from image to image: the first is a third shorter than the input."""
    pixels = torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(number))
    limits = torch.tensor([[height, width]] * number, dtype=torch.float32)
    limits[0, 0] = height * 2 // 3
    return pixels, limits


def assert_same_detections(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """The same scores, and boxes and labels that agree one to one; the order of equal scores is open."""
    boxes, scores, labels = found
    assert boxes.dtype == scores.dtype == torch.float32
    assert labels.dtype == torch.int64
    rows = min(scores.shape[1], expected[1].shape[1])  # eager, RetinaNet's are as many as the fullest image has
    assert not scores[:, rows:].any()
    assert not expected[1][:, rows:].any()
    torch.testing.assert_close(scores[:, :rows], expected[1][:, :rows], rtol=1e-4, atol=1e-5)
    there = scores[:, :rows] > 0
    assert there.any(1).all()
    for i, mask in enumerate(there):
        apart = (boxes[i, :rows][mask][:, None] - expected[0][i, :rows][mask]).abs().amax(-1)
        apart = apart + 1e4 * (labels[i, :rows][mask][:, None] != expected[2][i, :rows][mask])
        assert max(apart.amin(0).max(), apart.amin(1).max()) < 0.05
