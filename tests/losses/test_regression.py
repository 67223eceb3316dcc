"""Box losses: smooth L1 and L1 on encoded boxes, GIoU on decoded ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import reference
import torch

from singleshot.coders import DeltaCoder
from singleshot.losses.regression import L1, GIoULoss, SmoothL1
from singleshot.structures import Matched

CODER = DeltaCoder((0.1, 0.2))


def matched_of(anchors: torch.Tensor, boxes: torch.Tensor, positive: torch.Tensor) -> Matched:
    labels = torch.zeros_like(positive, dtype=torch.int64)
    return Matched(anchors, boxes, labels, positive, torch.ones_like(positive), CODER)


def random_case(seed: int = 0) -> tuple[dict[str, torch.Tensor], Matched]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 12, 2, generator=generator) * 50
    boxes = torch.cat([low, low + torch.rand(2, 12, 2, generator=generator) * 50 + 1], -1)
    low = torch.rand(12, 2, generator=generator) * 50
    anchors = torch.cat([low, low + 20], -1)
    predicted = torch.randn(2, 12, 4, generator=generator, requires_grad=True)
    return {"box_deltas": predicted}, matched_of(anchors, boxes, torch.rand(2, 12, generator=generator) < 0.4)


def test_worked_by_hand() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor(
        [[[1.0, 0.0, 11.0, 10.0], [0.0, 0.0, 10.0, 10.0]]]
    )  # target of anchor 0: dx = 1 / 10 / 0.1 = 1
    predicted = torch.tensor([[[1.5, 2.0, 0.0, -0.5], [9.0, 9.0, 9.0, 9.0]]])
    loss = SmoothL1()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True, False]])))
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
    loss = SmoothL1(beta=beta)({"box_deltas": predicted}, matched_of(anchors, boxes, positive))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_perfect_prediction_costs_nothing() -> None:
    anchors, boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[[3.0, 4.0, 20.0, 30.0]]])
    predicted = CODER.encode(boxes, anchors)
    assert SmoothL1()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True]]))) == 0


def test_without_positives_exactly_0_with_gradients() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    predicted = torch.full((1, 1, 4), 7.0, requires_grad=True)
    loss = SmoothL1()({"box_deltas": predicted}, matched_of(anchors, anchors[None], torch.tensor([[False]])))
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss == 0
    assert (gradient == 0).all()


def test_far_predictions_pull_with_constant_force() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    predicted = torch.tensor([[[100.0, -0.25, 0.0, -50.0]]], requires_grad=True)
    loss = SmoothL1()({"box_deltas": predicted}, matched_of(anchors, anchors[None], torch.tensor([[True]])))
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert gradient.tolist() == [[[1.0, -0.25, 0.0, -1.0]]]


class TestL1:
    def test_worked_by_hand(self) -> None:
        anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        boxes = torch.tensor([[[1.0, 0.0, 11.0, 10.0], [0.0, 0.0, 10.0, 10.0]]])  # dx = 1 / 10 / 0.1 = 1
        predicted = torch.tensor([[[1.5, 2.0, 0.0, -0.5], [9.0, 9.0, 9.0, 9.0]]])
        loss = L1()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True, False]])))
        torch.testing.assert_close(loss, torch.tensor(0.5 + 2.0 + 0.0 + 0.5))

    def test_is_the_limit_of_smooth_l1(self) -> None:
        predictions, matched = random_case()
        torch.testing.assert_close(
            L1()(predictions, matched), SmoothL1(beta=1e-6)(predictions, matched), rtol=1e-5, atol=0.0
        )

    def test_pulls_with_constant_force(self) -> None:
        predictions, matched = random_case()
        (gradient,) = torch.autograd.grad(L1()(predictions, matched), predictions["box_deltas"])
        assert (gradient[matched.positive].abs() == 1).all()
        assert (gradient[~matched.positive] == 0).all()


class TestGIoU:
    def test_worked_by_hand(self) -> None:
        # Decoded: the anchor moved by 1 x variance 0.1 x 10 = 1 pixel. IoU 90 / 110, nothing wasted in the hull.
        anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]]])
        predicted = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
        loss = GIoULoss()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True, False]])))
        torch.testing.assert_close(loss, torch.tensor(1 - 90 / 110))

    def test_equals_the_slow_form(self) -> None:
        predictions, matched = random_case()
        decoded = CODER.decode(predictions["box_deltas"], matched.anchors).tolist()
        expected = 0.0
        for i, a in matched.positive.nonzero().tolist():
            p, t = decoded[i][a], matched.boxes[i, a].tolist()
            area = (p[2] - p[0]) * (p[3] - p[1]) + (t[2] - t[0]) * (t[3] - t[1])
            union = area / (1 + reference.iou(p, t))  # IoU = (area - union) / union
            hull = (max(p[2], t[2]) - min(p[0], t[0])) * (max(p[3], t[3]) - min(p[1], t[1]))
            expected += 1 - (reference.iou(p, t) - (hull - union) / hull)
        assert GIoULoss()(predictions, matched).item() == pytest.approx(expected, rel=1e-4)

    def test_perfect_prediction_costs_nothing(self) -> None:
        anchors, boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[[3.0, 4.0, 20.0, 30.0]]])
        predicted = CODER.encode(boxes, anchors)
        loss = GIoULoss()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True]])))
        assert loss.abs() < 1e-6

    def test_pulls_boxes_that_do_not_meet(self) -> None:
        anchors, boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[[50.0, 0.0, 60.0, 10.0]]])
        predicted = torch.zeros(1, 1, 4, requires_grad=True)
        loss = GIoULoss()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True]])))
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert 1 < loss < 2
        assert gradient[0, 0, 0] < 0  # to the right

    @pytest.mark.parametrize("size", [100.0, -100.0])
    def test_finite_for_extreme_deltas(self, size: float) -> None:
        anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        for boxes in (torch.tensor([[[4.0, 4.0, 5.0, 5.0]]]), torch.tensor([[[5.0, 5.0, 5.0, 5.0]]])):
            predicted = torch.full((1, 1, 4), size, requires_grad=True)
            loss = GIoULoss()({"box_deltas": predicted}, matched_of(anchors, boxes, torch.tensor([[True]])))
            (gradient,) = torch.autograd.grad(loss, predicted)
            assert loss.isfinite()
            assert gradient.isfinite().all()

    def test_other_anchors_may_say_anything(self) -> None:
        predictions, matched = random_case()
        expected = GIoULoss()(predictions, matched)
        for wild in (torch.inf, torch.nan, 1e30):
            changed = torch.where(
                matched.positive[..., None], predictions["box_deltas"].detach(), wild
            ).requires_grad_()
            loss = GIoULoss()({"box_deltas": changed}, matched)
            (gradient,) = torch.autograd.grad(loss, changed)
            assert loss == expected
            assert gradient.isfinite().all()

    def test_without_positives_exactly_0_with_gradients(self) -> None:
        predictions, matched = random_case()
        nothing = torch.zeros_like(matched.positive)
        none = matched_of(matched.anchors, matched.boxes, nothing)
        for loss in (GIoULoss(), L1()):
            value = loss(predictions, none)
            (gradient,) = torch.autograd.grad(value, predictions["box_deltas"])
            assert value == 0
            assert (gradient == 0).all()


@pytest.mark.parametrize("loss", [SmoothL1(), SmoothL1(0.11), L1(), GIoULoss()])
def test_gradient_is_that_of_the_value(loss: SmoothL1 | L1 | GIoULoss) -> None:
    predictions, matched = random_case()
    deltas = predictions["box_deltas"].detach().double().requires_grad_()
    double = replace(matched, anchors=matched.anchors.double(), boxes=matched.boxes.double())
    if isinstance(loss, GIoULoss):  # computed in float32 whatever comes
        assert torch.autograd.gradcheck(lambda x: loss({"box_deltas": x}, double), (deltas,), eps=1e-2, atol=0.05)
    else:
        assert torch.autograd.gradcheck(lambda x: loss({"box_deltas": x}, double), (deltas,))
