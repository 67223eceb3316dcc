"""Losses whose target is how well the box fits: the quality focal loss and the varifocal loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses.focal import FocalLoss
from singleshot.losses.iou_target import IoUTargetLoss, soft_cross_entropy
from singleshot.losses.quality_focal import QualityFocalLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy
from singleshot.losses.varifocal import VarifocalLoss
from singleshot.structures import Matched

CODER = DeltaCoder((1.0, 1.0))
BOTH = pytest.mark.parametrize("loss", [QualityFocalLoss(), VarifocalLoss()], ids=lambda loss: type(loss).__name__)


def case(seed: int = 0) -> tuple[dict[str, Tensor], Matched]:
    """Three classes; positives whose boxes fit well and badly."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(20, 2, generator=generator) * 50
    anchors = torch.cat([low, low + torch.rand(20, 2, generator=generator) * 20 + 10], -1)
    boxes = anchors + torch.randn(2, 20, 4, generator=generator) * 2
    positive = torch.rand(2, 20, generator=generator) < 0.4
    counted = positive | (torch.rand(2, 20, generator=generator) < 0.8)
    labels = torch.randint(0, 3, (2, 20), generator=generator) * positive
    predictions = {
        "class_logits": torch.randn(2, 20, 3, generator=generator, requires_grad=True),
        "box_deltas": (torch.randn(2, 20, 4, generator=generator) * 0.1).requires_grad_(),
    }
    return predictions, Matched(anchors, boxes, labels, positive, counted, CODER)


def one(logits: list[float], delta: float = 0.0) -> tuple[dict[str, Tensor], Matched]:
    """One anchor that shows class 0 and lies on its object; its box is said to lie `delta` of its width beside it."""
    box, true = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[True]])
    predictions = {"class_logits": torch.tensor([[logits]]), "box_deltas": torch.tensor([[[delta, 0.0, 0.0, 0.0]]])}
    return predictions, Matched(box, box[None], torch.tensor([[0]]), true, true, CODER)


def test_worked_by_hand() -> None:
    # The box is moved by 2 of 10 pixels: IoU 80 / 120. Class 0 is predicted with 3/4, class 1 with 1/4.
    predictions, matched = one([math.log(3), -math.log(3)], 0.2)
    y, log = 2 / 3, math.log
    own = (3 / 4 - y) ** 2 * -(y * log(3 / 4) + (1 - y) * log(1 / 4))
    other = (1 / 4) ** 2 * -log(3 / 4)
    assert QualityFocalLoss()(predictions, matched).item() == pytest.approx(own + other, rel=1e-5)
    own = y * -(y * log(3 / 4) + (1 - y) * log(1 / 4))
    assert VarifocalLoss()(predictions, matched).item() == pytest.approx(own + 0.75 * other, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "slow"),
    [
        (QualityFocalLoss(), lambda p, y: reference.quality_focal(p, y)),
        (QualityFocalLoss(beta=0.7), lambda p, y: reference.quality_focal(p, y, 0.7)),
        (VarifocalLoss(), lambda p, q: reference.varifocal(p, q)),
        (VarifocalLoss(alpha=0.4, gamma=1.5), lambda p, q: reference.varifocal(p, q, 0.4, 1.5)),
    ],
)
def test_equals_the_slow_form(loss: Any, slow: Any) -> None:
    predictions, matched = case()
    boxes = CODER.decode(predictions["box_deltas"], matched.anchors).tolist()
    expected = 0.0
    for i, a in matched.counted.nonzero().tolist():
        for k in range(3):
            own = bool(matched.positive[i, a]) and k == int(matched.labels[i, a])
            target = reference.iou(boxes[i][a], matched.boxes[i, a].tolist()) if own else 0.0
            expected += slow(1 / (1 + math.exp(-predictions["class_logits"][i, a, k].item())), target)
    assert loss(predictions, matched).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("target", [0.0, 1e-6, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize(
    "loss", [QualityFocalLoss(), QualityFocalLoss(0.0), QualityFocalLoss(1.0), VarifocalLoss(), VarifocalLoss(0.3, 0.5)]
)
def test_the_derivative_is_that_of_the_equation(loss: IoUTargetLoss, target: float) -> None:
    """Autograd through the equation as it is written, in float64, where the code has a derivative by hand."""
    x = torch.linspace(-20, 20, 81, dtype=torch.float64).requires_grad_()
    p, y = x.sigmoid(), torch.full_like(x, target)
    entropy = -(1 - y) * F.logsigmoid(-x) - y * F.logsigmoid(x)
    if isinstance(loss, QualityFocalLoss):
        expected = (y - p).abs() ** loss.beta * entropy
    elif isinstance(loss, VarifocalLoss):
        expected = y * entropy if target > 0 else loss.alpha * p**loss.gamma * entropy
    (slope,) = torch.autograd.grad(expected.sum(), x)
    z = x.detach()
    value, derivative = loss.positive(z, y.detach()) if target > 0 else loss.background(z)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(derivative, slope, rtol=1e-6, atol=1e-12)
    value, derivative = loss.positive(z.float(), y.detach().float()) if target > 0 else loss.background(z.float())
    torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(derivative.double(), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0])
def test_a_perfect_box_makes_quality_focal_loss_the_focal_loss(beta: float) -> None:
    """With targets of 0 and 1 alone |y - p| is 1 - p_t."""
    predictions, matched = case()
    matched = replace(matched, boxes=matched.decoded(predictions["box_deltas"].detach()))
    focal, quality = FocalLoss(alpha=None, gamma=beta), QualityFocalLoss(beta=beta)
    values = [loss(predictions, matched) for loss in (focal, quality)]
    slopes = [torch.autograd.grad(value, predictions["class_logits"])[0] for value in values]
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-5)


def test_a_perfect_box_makes_varifocal_loss_cross_entropy_beside_focal_background() -> None:
    predictions, matched = case()
    matched = replace(matched, boxes=matched.decoded(predictions["box_deltas"].detach()))
    x = predictions["class_logits"]
    chosen = F.one_hot(matched.labels, 3).bool() & matched.positive[..., None]
    background = matched.counted[..., None] & ~chosen
    focal = x.sigmoid() ** 2 * F.softplus(x)
    expected = F.softplus(-x)[chosen].sum() + 0.75 * focal[background].sum()
    torch.testing.assert_close(VarifocalLoss()(predictions, matched), expected, rtol=1e-5, atol=1e-5)


def test_beta_0_is_cross_entropy_with_soft_targets() -> None:
    predictions, matched = case()
    target = F.one_hot(matched.labels, 3) * matched.iou(predictions["box_deltas"])[..., None]
    expected = F.binary_cross_entropy_with_logits(predictions["class_logits"], target, reduction="none")
    torch.testing.assert_close(QualityFocalLoss(0.0)(predictions, matched), expected[matched.counted].sum())


@BOTH
def test_a_box_that_misses_its_object_is_background(loss: IoUTargetLoss) -> None:
    predictions, matched = one([0.3, -1.0], 5.0)
    nothing = replace(matched, positive=~matched.positive)
    assert loss(predictions, matched) == loss(predictions, nothing)


@BOTH
def test_least_where_the_score_is_the_iou(loss: IoUTargetLoss) -> None:
    predictions, matched = one([math.log(2), -50.0], 0.2)  # p = IoU = 2 / 3
    logits = predictions["class_logits"].requires_grad_()
    (gradient,) = torch.autograd.grad(loss(predictions, matched), logits)
    assert gradient.abs().max() < 1e-6
    for x, sign in ((2.0, 1.0), (-2.0, -1.0)):  # too sure, not sure enough
        predictions["class_logits"] = torch.tensor([[[x, -50.0]]], requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(predictions, matched), predictions["class_logits"])
        assert gradient[0, 0, 0].sign() == sign


@BOTH
def test_the_boxes_have_no_gradient(loss: IoUTargetLoss) -> None:
    predictions, matched = case()
    gradients = torch.autograd.grad(loss(predictions, matched), list(predictions.values()), allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1] is None


@BOTH
def test_without_positives_all_is_background(loss: IoUTargetLoss) -> None:
    predictions, matched = case()
    nothing = replace(matched, positive=torch.zeros_like(matched.positive))
    expected = loss.background(predictions["class_logits"].detach())[0][matched.counted].sum()
    torch.testing.assert_close(loss(predictions, nothing), expected)


@BOTH
def test_scores_are_plain_sigmoids(loss: IoUTargetLoss) -> None:
    x = torch.linspace(-9, 9, 19)
    assert torch.equal(loss.probabilities(x), x.sigmoid())
    assert loss.num_logits(20) == 20
    assert loss.initial_bias == BalancedCrossEntropy().initial_bias


@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_soft_cross_entropy_at_the_ends(target: float) -> None:
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    loss, slope = soft_cross_entropy(x, torch.full_like(x, target))
    torch.testing.assert_close(loss, torch.where(x > 0, (1 - target) * x, -target * x))
    torch.testing.assert_close(slope, torch.where(x > 0, 1.0 - target, -target))


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (QualityFocalLoss, {"beta": -1.0}, "QualityFocalLoss: beta must be at least 0"),
        (QualityFocalLoss, {"beta": math.nan}, "QualityFocalLoss: beta must be at least 0"),
        (QualityFocalLoss, {"prior": 0.0}, "QualityFocalLoss: prior must be a probability"),
        (VarifocalLoss, {"gamma": -0.1}, "VarifocalLoss: gamma must be at least 0"),
        (VarifocalLoss, {"alpha": -0.1}, "VarifocalLoss: alpha, the weight of the background, must be at least 0"),
        (VarifocalLoss, {"prior": 1.0}, "VarifocalLoss: prior must be a probability"),
    ],
)
def test_settings_that_are_refused(kind: Any, arguments: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kind(**arguments)
