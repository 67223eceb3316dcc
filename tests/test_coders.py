"""Boxes as differences from anchors."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from singleshot.coders import DeltaCoder

coordinates = st.floats(-200, 800, width=32)
sides = st.floats(1, 600, width=32)
boxes = st.tuples(coordinates, coordinates, sides, sides).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


def test_worked_by_hand() -> None:
    anchor, box = torch.tensor([10.0, 10.0, 30.0, 50.0]), torch.tensor([20.0, 10.0, 40.0, 90.0])
    # Centres 20, 30 and 30, 50; sizes 20, 40 and 20, 80.
    expected = torch.tensor([10 / 20 / 0.1, 20 / 40 / 0.1, 0.0, math.log(2) / 0.2])
    torch.testing.assert_close(DeltaCoder((0.1, 0.2)).encode(box, anchor), expected)
    torch.testing.assert_close(DeltaCoder((1.0, 1.0)).encode(box, anchor), torch.tensor([0.5, 0.5, 0.0, math.log(2)]))
    torch.testing.assert_close(DeltaCoder().decode(expected, anchor), box)


@given(box=boxes, anchor=boxes)
@settings(max_examples=150, deadline=None)
def test_encode_equals_equation_2(box: list[float], anchor: list[float]) -> None:
    box, anchor = torch.tensor(box).tolist(), torch.tensor(anchor).tolist()
    encoded = DeltaCoder().encode(torch.tensor(box), torch.tensor(anchor))
    torch.testing.assert_close(encoded, torch.tensor(reference.encode(box, anchor)), rtol=1e-3, atol=1e-3)


@given(box=boxes, anchor=boxes.filter(lambda b: min(b[2] - b[0], b[3] - b[1]) > 10))
@settings(max_examples=300, deadline=None)
def test_decode_is_the_inverse_of_encode(box: list[float], anchor: list[float]) -> None:
    coder = DeltaCoder()
    original, start = torch.tensor(box), torch.tensor(anchor)
    torch.testing.assert_close(coder.decode(coder.encode(original, start), start), original, rtol=1e-3, atol=0.02)


def test_an_anchor_is_zero_to_itself() -> None:
    anchors = torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 7.0, 300.0, 20.0]])
    assert torch.equal(DeltaCoder().encode(anchors, anchors), torch.zeros(2, 4))
    assert torch.equal(DeltaCoder().decode(torch.zeros(2, 4), anchors), anchors)


@pytest.mark.parametrize("number", [1e3, -1e3, 1e9, -1e9, 1e30, -1e30])
def test_extreme_deltas_stay_finite(number: float) -> None:
    anchors = torch.tensor([[100.0, 100.0, 400.0, 400.0]])
    decoded = DeltaCoder().decode(torch.full((1, 4), number), anchors)
    assert decoded.isfinite().all()


def test_sizes_are_limited() -> None:
    anchor = torch.tensor([100.0, 100.0, 400.0, 500.0])
    decoded = DeltaCoder().decode(torch.tensor([0.0, 0.0, 1e9, 1e9]), anchor)
    torch.testing.assert_close(decoded[2:] - decoded[:2], torch.tensor([300 * 62.5, 400 * 62.5]))


def test_the_limit_of_the_size_is_beyond_every_real_box() -> None:
    anchor, box = torch.tensor([0.0, 0.0, 20.0, 20.0]), torch.tensor([-500.0, -500.0, 700.0, 700.0])  # 60 times
    coder = DeltaCoder((1.0, 1.0))
    torch.testing.assert_close(coder.decode(coder.encode(box, anchor), anchor), box, rtol=1e-4, atol=0.01)


def test_boxes_without_area_encode_to_finite_numbers() -> None:
    point, anchor = torch.tensor([5.0, 5.0, 5.0, 5.0]), torch.tensor([0.0, 0.0, 10.0, 10.0])
    assert DeltaCoder().encode(point, anchor).isfinite().all()
    assert DeltaCoder().encode(anchor, point).isfinite().all()


def test_broadcasts_anchors_over_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        low = torch.rand(*shape, 2, generator=generator) * 50
        return torch.cat([low, low + torch.rand(*shape, 2, generator=generator) * 50 + 1], -1)

    boxes, anchors = random(3, 7), random(7)
    encoded = DeltaCoder().encode(boxes, anchors)
    assert encoded.shape == (3, 7, 4)
    assert torch.equal(encoded[1], DeltaCoder().encode(boxes[1], anchors))
    assert DeltaCoder().encode(torch.zeros(2, 0, 4), torch.zeros(0, 4)).shape == (2, 0, 4)


def test_gradient_reaches_the_deltas() -> None:
    deltas = torch.zeros(1, 4, requires_grad=True)
    DeltaCoder().decode(deltas, torch.tensor([[0.0, 0.0, 10.0, 20.0]])).sum().backward()
    assert deltas.grad is not None
    assert deltas.grad[0].tolist() == pytest.approx([2.0, 4.0, 0.0, 0.0])  # x1 + x2 moves by 2 * 0.1 * 10
