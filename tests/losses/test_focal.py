"""Focal loss and FL*."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.losses.focal import FocalLoss, FocalStarLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy, SigmoidLoss
from singleshot.structures import Matched


def single(loss: Any, x: Tensor, y: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient of logits [N], each alone as an anchor of one class, through the public call."""
    logits = x.clone()[None, :, None].requires_grad_()
    positive = torch.full((1, len(x)), y == 1)
    boxes = torch.zeros(1, len(x), 4)
    matched = Matched(boxes[0], boxes, torch.zeros(1, len(x), dtype=torch.int64), positive, torch.ones_like(positive))
    losses = loss.anchor_losses({"class_logits": logits}, matched)
    (gradient,) = torch.autograd.grad(loss({"class_logits": logits}, matched), logits)
    return losses[0].detach(), gradient[0, :, 0]


def test_worked_by_hand() -> None:
    # Section 3.2: with gamma 2, p_t = 0.9 costs 100 times less than cross-entropy, p_t = 0.968 about 1000 times.
    p = torch.tensor([0.9, 0.968])
    x = (p / (1 - p)).log()
    focal, _ = single(FocalLoss(alpha=None, gamma=2.0), x, 1)
    assert focal[0].item() == pytest.approx(-(0.1**2) * math.log(0.9), rel=1e-4)
    ratio = -p.log() / focal
    assert ratio[0].item() == pytest.approx(100, rel=1e-3)
    assert ratio[1].item() == pytest.approx(1000, rel=0.03)


def test_alpha_weighs_positives_and_the_rest_negatives() -> None:
    x = torch.tensor([0.3, -2.0])
    for y, weight in ((1, 0.2), (-1, 0.8)):
        plain, weighted = single(FocalLoss(alpha=None), x, y), single(FocalLoss(alpha=0.2), x, y)
        torch.testing.assert_close(weighted[0], weight * plain[0])
        torch.testing.assert_close(weighted[1], weight * plain[1])


@pytest.mark.parametrize("y", [1, -1])
def test_gamma_0_is_cross_entropy(y: int) -> None:
    x = torch.linspace(-100, 100, 401)
    focal, cross_entropy = single(FocalLoss(alpha=0.75, gamma=0.0), x, y), single(BalancedCrossEntropy(0.75), x, y)
    torch.testing.assert_close(focal, cross_entropy, rtol=1e-6, atol=0.0)


def test_gamma_1_and_beta_0_of_the_variant_is_cross_entropy() -> None:
    x = torch.linspace(-100, 100, 401)
    star, cross_entropy = single(FocalStarLoss(1.0, 0.0, None), x, -1), single(BalancedCrossEntropy(None), x, -1)
    torch.testing.assert_close(star, cross_entropy, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("y", [1, -1])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_equations_5_and_10(gamma: float, y: int) -> None:
    x = torch.linspace(-30, 30, 241, dtype=torch.float64)
    alpha_t = 0.25 if y == 1 else 0.75
    p_t = (y * x).sigmoid()
    log_p_t = F.logsigmoid(y * x)
    missed = (-y * x).sigmoid()  # 1 - p_t, but exact where p_t is near 1
    value = -alpha_t * missed**gamma * log_p_t
    slope = alpha_t * y * missed**gamma * (gamma * p_t * log_p_t - missed)
    found, gradient = single(FocalLoss(0.25, gamma), x, y)
    torch.testing.assert_close(found, value, rtol=1e-7, atol=1e-300)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-300)
    found, gradient = single(FocalLoss(0.25, gamma), x.float(), y)
    torch.testing.assert_close(found.double(), value, rtol=2e-5, atol=1e-37)
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-5, atol=1e-37)


@pytest.mark.parametrize("y", [1, -1])
@pytest.mark.parametrize(("gamma", "beta"), [(2.0, 1.0), (4.0, 0.0), (0.5, -1.0)])
def test_the_variant_is_equations_8_and_11(gamma: float, beta: float, y: int) -> None:
    x = torch.linspace(-30, 30, 241, dtype=torch.float64)
    alpha_t = 0.25 if y == 1 else 0.75
    value = -alpha_t * F.logsigmoid(gamma * y * x + beta) / gamma
    slope = -alpha_t * y * (-gamma * y * x - beta).sigmoid()  # p_t* - 1
    found, gradient = single(FocalStarLoss(gamma, beta, 0.25), x, y)
    torch.testing.assert_close(found, value, rtol=1e-7, atol=1e-300)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize("loss", [FocalLoss(), FocalLoss(gamma=0.0), FocalLoss(gamma=5.0), FocalStarLoss()])
@pytest.mark.parametrize("y", [1, -1])
def test_the_slope_tends_to_1_and_0(loss: SigmoidLoss, y: int) -> None:
    # Appendix B: "the derivative tends to -1 or 0 for high-confidence predictions", here times alpha_t.
    alpha_t = 0.25 if y == 1 else 0.75
    losses, gradient = single(loss, torch.tensor([-100.0 * y, 100.0 * y]), y)
    assert gradient[0].item() == pytest.approx(-y * alpha_t, rel=1e-6)
    assert abs(gradient[1].item()) < 1e-40
    assert losses[0].item() == pytest.approx(alpha_t * 100, rel=0.01)  # FL* is shifted by beta / gamma
    assert losses[1].item() < 1e-40


def test_symmetric_in_the_two_answers() -> None:
    x = torch.linspace(-9, 9, 37)
    for loss in (FocalLoss(alpha=0.5), FocalStarLoss(alpha=0.5)):
        up, down = single(loss, x, 1), single(loss, -x, -1)
        torch.testing.assert_close(up[0], down[0])
        torch.testing.assert_close(up[1], -down[1])


def test_more_gamma_less_weight_for_easy_examples() -> None:
    easy = torch.tensor([3.0])
    losses = [single(FocalLoss(None, gamma), easy, 1)[0].item() for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert losses == sorted(losses, reverse=True)


def test_at_the_start_positives_and_negatives_balance() -> None:
    # With the prior 0.01 the 80 x 100,000 easy negatives of an image weigh some hundreds, not hundreds of thousands.
    loss = FocalLoss()
    bias = torch.tensor([loss.initial_bias])
    negative = 8e6 * single(loss, bias, -1)[0].item()
    assert negative == pytest.approx(8e6 * 0.75 * 0.01**2 * -math.log(0.99), rel=1e-4)
    assert 8e6 * single(BalancedCrossEntropy(), bias, -1)[0].item() > 30 * negative


@pytest.mark.parametrize("gamma", [-1.0, math.nan])
def test_gammas_that_make_no_sense(gamma: float) -> None:
    with pytest.raises(UserError, match="FocalLoss: gamma"):
        FocalLoss(gamma=gamma)
    with pytest.raises(UserError, match="FocalStarLoss: gamma"):
        FocalStarLoss(gamma=gamma)
    with pytest.raises(UserError, match="FocalStarLoss: gamma"):
        FocalStarLoss(gamma=0.0)
