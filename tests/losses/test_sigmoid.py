"""Cross-entropy and hinge on one sigmoid per class, and what all such losses share."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.sigmoid import BalancedCrossEntropy, HingeLoss
from singleshot.structures import Matched


def matched_of(positive: Tensor, labels: Tensor, counted: Tensor | None = None) -> Matched:
    boxes = torch.zeros(*positive.shape, 4)
    counted = torch.ones_like(positive) if counted is None else counted
    return Matched(boxes[0], boxes, labels, positive, counted)


def test_cross_entropy_worked_by_hand() -> None:
    # Two anchors, two classes; the first anchor shows class 1, the second nothing.
    logits = torch.tensor([[[0.0, 2.0], [-1.0, 0.0]]])
    matched = matched_of(torch.tensor([[True, False]]), torch.tensor([[1, 0]]))
    log = math.log
    negative = log(2) + log(1 + math.exp(-1)) + log(2)  # logits 0, -1 and 0 with y = -1
    positive = log(1 + math.exp(-2))  # logit 2 with y = 1
    loss = BalancedCrossEntropy(alpha=0.75)({"class_logits": logits}, matched)
    assert loss.item() == pytest.approx(0.75 * positive + 0.25 * negative)
    loss = BalancedCrossEntropy(alpha=None)({"class_logits": logits}, matched)
    assert loss.item() == pytest.approx(positive + negative)


def test_cross_entropy_equals_that_of_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 30, 5, generator=generator) * 4
    positive = torch.rand(2, 30, generator=generator) < 0.3
    counted = positive | (torch.rand(2, 30, generator=generator) < 0.8)
    labels = torch.randint(0, 5, (2, 30), generator=generator) * positive
    hot = F.one_hot(labels, 5) * positive[..., None]
    expected = F.binary_cross_entropy_with_logits(logits, hot.float(), reduction="none")[counted].sum()
    matched = matched_of(positive, labels, counted)
    torch.testing.assert_close(BalancedCrossEntropy(alpha=None)({"class_logits": logits}, matched), expected)
    half = BalancedCrossEntropy(alpha=0.5)({"class_logits": logits}, matched)
    torch.testing.assert_close(half, expected / 2)


def test_the_loss_of_each_anchor() -> None:
    logits = torch.zeros(1, 3, 4)
    matched = matched_of(
        torch.tensor([[True, False, False]]), torch.tensor([[2, 0, 0]]), torch.tensor([[True] * 2 + [False]])
    )
    losses = BalancedCrossEntropy(alpha=0.75).anchor_losses({"class_logits": logits}, matched)
    log2 = math.log(2)
    torch.testing.assert_close(losses, torch.tensor([[(0.75 + 3 * 0.25) * log2, log2, log2]]))


def test_small_losses_are_not_lost_beside_a_large_one() -> None:
    # The positive's own logit says 1e4 as a negative: taking that out of the sum again would leave nothing else.
    logits = torch.full((1, 1, 81), -7.0)
    logits[0, 0, 5] = 1e6
    loss = BalancedCrossEntropy(alpha=None)(
        {"class_logits": logits}, matched_of(torch.tensor([[True]]), torch.tensor([[5]]))
    )
    assert loss.item() == pytest.approx(80 * math.log1p(math.exp(-7)), rel=1e-5)


class TestHinge:
    def test_worked_by_hand(self) -> None:
        logits = torch.tensor([[[0.0, math.log(1 / 4), math.log(4)]]])  # p = 0.5, 0.2, 0.8; y = -1, 1, -1
        matched = matched_of(torch.tensor([[True]]), torch.tensor([[1]]))
        loss = HingeLoss(margin=0.6)({"class_logits": logits}, matched)
        assert loss.item() == pytest.approx((0.6 - 0.5) + (0.6 - 0.2) + (0.6 - 0.2))

    def test_nothing_above_the_margin(self) -> None:
        z = torch.linspace(-8, 8, 33)
        loss, slope = HingeLoss(margin=0.7).curve(z)
        above = (-z).sigmoid() >= 0.7
        assert (loss[above] == 0).all()
        assert (slope[above] == 0).all()
        assert (loss[~above] > 0).all()
        assert (slope[~above] > 0).all()

    def test_the_further_wrong_the_less_it_pulls(self) -> None:
        _, slope = HingeLoss().curve(torch.tensor([0.5, 2.0, 4.6, 20.0, 100.0]))
        assert (slope.diff() < 0).all()
        assert slope[2].item() == pytest.approx(0.01, rel=0.02)
        assert slope[3] > 0

    @pytest.mark.parametrize("margin", [0.0, -0.5, 1.5, math.nan])
    def test_margins_that_are_none(self, margin: float) -> None:
        with pytest.raises(UserError, match="HingeLoss: margin"):
            HingeLoss(margin=margin)


@pytest.mark.parametrize("loss", [BalancedCrossEntropy, HingeLoss])
def test_prior_is_the_first_probability(loss: type[BalancedCrossEntropy | HingeLoss]) -> None:
    for prior in (0.01, 0.3, 0.5):
        bias = loss(prior=prior).initial_bias
        assert loss().probabilities(torch.tensor(bias)).item() == pytest.approx(prior)
    assert loss().initial_bias == pytest.approx(-4.59512)
    assert loss().num_logits(20) == 20


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 2, math.nan])
def test_priors_that_are_no_probability(prior: float) -> None:
    with pytest.raises(UserError, match="BalancedCrossEntropy: prior must be a probability"):
        BalancedCrossEntropy(prior=prior)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, 25, math.nan])
def test_weights_outside_of_0_to_1(alpha: float) -> None:
    with pytest.raises(UserError, match="alpha must be a weight from 0 to 1"):
        BalancedCrossEntropy(alpha=alpha)
