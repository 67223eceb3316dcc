"""The loss of the predicted IoU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses.quality import KINDS, IoUQuality
from singleshot.structures import Matched

CODER = DeltaCoder((1.0, 1.0))


def case(seed: int = 0) -> tuple[dict[str, Tensor], Matched]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(20, 2, generator=generator) * 50
    anchors = torch.cat([low, low + torch.rand(20, 2, generator=generator) * 20 + 10], -1)
    boxes = anchors + torch.randn(2, 20, 4, generator=generator) * 2
    positive = torch.rand(2, 20, generator=generator) < 0.4
    predictions = {
        "iou_logits": torch.randn(2, 20, 1, generator=generator, requires_grad=True),
        "box_deltas": (torch.randn(2, 20, 4, generator=generator) * 0.1).requires_grad_(),
    }
    return predictions, Matched(anchors, boxes, torch.zeros(2, 20).long(), positive, torch.ones_like(positive), CODER)


def one(logit: float, deltas: list[float], box: list[float]) -> tuple[dict[str, Tensor], Matched]:
    predictions = {
        "iou_logits": torch.tensor([[[logit]]], requires_grad=True),
        "box_deltas": torch.tensor([[deltas]], requires_grad=True),
    }
    true = torch.tensor([[True]])
    return predictions, Matched(
        torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[box]]), torch.tensor([[0]]), true, true, CODER
    )


def test_worked_by_hand() -> None:
    # The box is moved by 2 of 10 pixels: IoU 80 / 120. The logit log(3) means that 0.75 is predicted.
    predictions, matched = one(math.log(3), [0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 10.0])
    t = 2 / 3
    expected = -t * math.log(0.75) - (1 - t) * math.log(0.25)
    assert IoUQuality()(predictions, matched).item() == pytest.approx(expected, rel=1e-5)
    assert IoUQuality("l2")(predictions, matched).item() == pytest.approx((0.75 - t) ** 2, rel=1e-4)
    assert IoUQuality("l1")(predictions, matched).item() == pytest.approx(0.75 - t, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_slow_form(kind: str) -> None:
    predictions, matched = case()
    expected = 0.0
    boxes = CODER.decode(predictions["box_deltas"], matched.anchors).tolist()
    for i, a in matched.positive.nonzero().tolist():
        t = reference.iou(boxes[i][a], matched.boxes[i, a].tolist())
        p = 1 / (1 + math.exp(-predictions["iou_logits"][i, a, 0].item()))
        cross_entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
        expected += {"bce": cross_entropy, "l2": (p - t) ** 2, "l1": abs(p - t)}[kind]
    assert IoUQuality(kind)(predictions, matched).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_detached_the_boxes_have_no_gradient(kind: str) -> None:
    predictions, matched = case()
    logits, deltas = predictions["iou_logits"], predictions["box_deltas"]
    fixed, free = (IoUQuality(kind, detach=detach)(predictions, matched) for detach in (True, False))
    assert fixed == free
    first, nothing = torch.autograd.grad(fixed, (logits, deltas), allow_unused=True)
    second, something = torch.autograd.grad(free, (logits, deltas))
    assert torch.equal(first, second)
    assert nothing is None
    assert (something[matched.positive].abs().sum(-1) > 0).all()
    assert (something[~matched.positive] == 0).all()
    assert (first[~matched.positive] == 0).all()


def test_not_detached_the_box_follows_the_predicted_iou() -> None:
    # The derivative in the target is minus the logit: above 0.5 the box is pulled to a higher IoU, below away from it.
    for logit, sign in ((1.0, -1.0), (-1.0, 1.0)):
        predictions, matched = one(logit, [0.1, 0.0, 0.0, 0.0], [5.0, 0.0, 15.0, 10.0])  # the object lies to the right
        (gradient,) = torch.autograd.grad(IoUQuality(detach=False)(predictions, matched), predictions["box_deltas"])
        assert gradient[0, 0, 0].sign() == sign


@pytest.mark.parametrize("size", [100.0, -100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_finite_at_extreme_logits(kind: str, size: float) -> None:
    predictions, matched = one(size, [0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 10.0])
    loss = IoUQuality(kind)(predictions, matched)
    (gradient,) = torch.autograd.grad(loss, predictions["iou_logits"])
    t = 2 / 3
    if kind == "bce":
        assert loss.item() == pytest.approx(100 * (1 - t if size > 0 else t), rel=1e-4)
        assert gradient.item() == pytest.approx(1 - t if size > 0 else -t, rel=1e-4)
    else:
        distance = 1 - t if size > 0 else t
        assert loss.item() == pytest.approx(distance**2 if kind == "l2" else distance, rel=1e-4)
        assert abs(gradient.item()) < 1e-30


def test_gradient_is_least_where_the_prediction_is_right() -> None:
    predictions, matched = one(math.log(2), [0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 10.0])  # p = t = 2 / 3
    for kind in ("bce", "l2"):
        (gradient,) = torch.autograd.grad(IoUQuality(kind)(predictions, matched), predictions["iou_logits"])
        assert abs(gradient.item()) < 1e-6


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("deltas", "box"),
    [
        ([0.0, 0.0, -100.0, -100.0], [4.0, 4.0, 5.0, 5.0]),
        ([0.0, 0.0, -100.0, 0.0], [5.0, 0.0, 5.0, 10.0]),  # two lines
        ([0.0, 0.0, -100.0, -100.0], [5.0, 5.0, 5.0, 5.0]),  # two points
        ([100.0, -100.0, 100.0, 100.0], [4.0, 4.0, 5.0, 5.0]),
        ([0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]),
        ([0.0, 0.0, 0.0, 0.0], [8.0, 8.0, 2.0, 2.0]),  # inverted
    ],
)
def test_degenerate_boxes(detach: bool, kind: str, deltas: list[float], box: list[float]) -> None:
    predictions, matched = one(0.7, deltas, box)
    loss = IoUQuality(kind, detach)(predictions, matched)
    gradients = torch.autograd.grad(loss, list(predictions.values()), allow_unused=True)
    assert loss.isfinite()
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("detach", [True, False])
def test_other_anchors_may_say_anything(detach: bool) -> None:
    predictions, matched = case()
    positive = matched.positive[..., None]
    expected = IoUQuality(detach=detach)(predictions, matched)
    for wild in (torch.inf, -torch.inf, torch.nan, 1e30):
        changed = {
            name: torch.where(positive, value.detach(), wild).requires_grad_() for name, value in predictions.items()
        }
        loss = IoUQuality(detach=detach)(changed, matched)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss == expected
        for value in changed.values():
            assert value.grad is None or value.grad.isfinite().all()


def test_without_positives_exactly_0_with_gradients() -> None:
    predictions, matched = case()
    nothing = torch.zeros_like(matched.positive)
    loss = IoUQuality()(predictions, replace(matched, positive=nothing))
    (gradient,) = torch.autograd.grad(loss, predictions["iou_logits"])
    assert loss == 0
    assert (gradient == 0).all()


def test_hard_targets_give_binary_cross_entropy() -> None:
    predictions, matched = one(0.3, [0.0] * 4, [0.0, 0.0, 10.0, 10.0])
    expected = F.binary_cross_entropy_with_logits(torch.tensor(0.3), torch.tensor(1.0))
    torch.testing.assert_close(IoUQuality()(predictions, matched), expected)


def test_unknown_losses() -> None:
    with pytest.raises(UserError, match="'bce' .* 'l2' .* or 'l1'.*got 'huber'"):
        IoUQuality("huber")


def test_the_absolute_difference_pulls_with_the_slope_of_the_sigmoid() -> None:
    for x in (-1.5, 0.2, 2.0):
        predictions, matched = one(x, [0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 10.0, 10.0])
        (gradient,) = torch.autograd.grad(IoUQuality("l1")(predictions, matched), predictions["iou_logits"])
        p = 1 / (1 + math.exp(-x))
        assert gradient.item() == pytest.approx(math.copysign(p * (1 - p), p - 2 / 3), rel=1e-4)
