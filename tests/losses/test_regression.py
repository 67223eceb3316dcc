"""Smooth L1 on encoded boxes."""

from __future__ import annotations

import pytest
import reference
import torch

from singleshot.coders import DeltaCoder
from singleshot.losses.regression import SmoothL1
from singleshot.structures import Matched

CODER = DeltaCoder((0.1, 0.2))


def matched_of(anchors: torch.Tensor, boxes: torch.Tensor, positive: torch.Tensor) -> Matched:
    return Matched(anchors, boxes, torch.zeros_like(positive, dtype=torch.int64), positive, torch.ones_like(positive))


def test_worked_by_hand() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor(
        [[[1.0, 0.0, 11.0, 10.0], [0.0, 0.0, 10.0, 10.0]]]
    )  # target of anchor 0: dx = 1 / 10 / 0.1 = 1
    predicted = torch.tensor([[[1.5, 2.0, 0.0, -0.5], [9.0, 9.0, 9.0, 9.0]]])
    loss = SmoothL1(CODER)({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True, False]])))
    torch.testing.assert_close(loss, torch.tensor(0.125 + 1.5 + 0.0 + 0.125))


@pytest.mark.parametrize("beta", [1.0, 0.11])
def test_equals_the_slow_form(beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 30, 2, generator=generator) * 50
    boxes = torch.cat([low, low + torch.rand(2, 30, 2, generator=generator) * 50 + 1], -1)
    low = torch.rand(30, 2, generator=generator) * 50
    anchors = torch.cat([low, low + 20], -1)
    predicted = torch.randn(2, 30, 4, generator=generator) * 4
    positive = torch.rand(2, 30, generator=generator) < 0.4
    expected = 0.0
    for i, a in positive.nonzero().tolist():
        target = reference.encode(boxes[i, a].tolist(), anchors[a].tolist())
        expected += sum(reference.smooth_l1(predicted[i, a, m].item() - target[m], beta) for m in range(4))
    loss = SmoothL1(CODER, beta=beta)({"box_deltas": predicted}, matched_of(anchors, boxes, positive))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_perfect_prediction_costs_nothing() -> None:
    anchors, boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[[3.0, 4.0, 20.0, 30.0]]])
    predicted = CODER.encode(boxes, anchors)
    assert SmoothL1(CODER)({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True]]))) == 0


def test_without_positives_exactly_0_with_gradients() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    predicted = torch.full((1, 1, 4), 7.0, requires_grad=True)
    loss = SmoothL1(CODER)({"box_deltas": predicted}, matched_of(anchors, anchors[None], torch.tensor([[False]])))
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss == 0
    assert (gradient == 0).all()


def test_far_predictions_pull_with_constant_force() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    predicted = torch.tensor([[[100.0, -0.25, 0.0, -50.0]]], requires_grad=True)
    loss = SmoothL1(CODER)({"box_deltas": predicted}, matched_of(anchors, anchors[None], torch.tensor([[True]])))
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert gradient.tolist() == [[[1.0, -0.25, 0.0, -1.0]]]
