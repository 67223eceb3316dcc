"""Parameter groups, and steps worked by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_detector import tiny
from torch import nn

from singleshot.errors import UserError
from singleshot.training.optimizer import create_optimizer, find_trunk, keep_norm_statistics, parameter_groups, set_rate
from singleshot.training.recipe import Optimizer


def rules(detector: nn.Module, settings: Optimizer) -> dict[str, tuple[float, float]]:
    return {
        name: (group["lr_factor"], group["weight_decay"])
        for group in parameter_groups(detector, settings)
        for name in group["names"]
    }


def test_the_papers_groups() -> None:
    detector = tiny(num_classes=2, norm=True)
    found = rules(detector, Optimizer(weight_decay=5e-4))
    assert set(found) == {name for name, _ in detector.named_parameters()}
    assert found["backbone.first.0.weight"] == (1, 5e-4)
    assert found["backbone.first.0.bias"] == (2, 0)
    assert found["backbone.first.1.weight"] == (1, 5e-4)  # batch norm
    assert found["backbone.first.1.bias"] == (1, 5e-4)


def test_norms_without_decay_and_a_slow_backbone() -> None:
    detector = tiny(num_classes=2, norm=True)
    detector.backbone.second[0].weight.requires_grad_(False)  # type: ignore[union-attr, index]
    found = rules(detector, Optimizer(norm_decay=False, backbone_lr_factor=0.1, weight_decay=0.05))
    assert found["backbone.first.1.weight"] == (0.1, 0)
    assert found["backbone.first.0.bias"] == (pytest.approx(0.2), 0)
    assert "backbone.second.0.weight" not in found
    assert {factor for name, (factor, _) in found.items() if name.startswith("head")} == {1, 2}


def test_sgd_by_hand() -> None:
    """Velocity v = 0.9 v + (g + decay w), w = w - rate v; the bias at twice the rate and without decay."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1.0)
    nn.init.constant_(layer.bias, 1.0)
    optimizer = create_optimizer(layer, Optimizer(momentum=0.9, weight_decay=0.1))
    for rate in (0.5, 0.25):
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        layer(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    # weight: v = 1.1, w = 0.45; v = 0.99 + 1.045, w = 0.45 - 0.25 * 2.035
    assert layer.weight.item() == pytest.approx(-0.05875)
    # bias: v = 1, b = 0; v = 1.9, b = -0.5 * 1.9
    assert layer.bias.item() == pytest.approx(-0.95)


def test_nothing_to_train() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        parameter_groups(nn.Linear(1, 1).requires_grad_(False), Optimizer())


def test_statistics_of_the_trunk_stay() -> None:
    detector = tiny(num_classes=2, norm=True).train()
    assert find_trunk(detector) == ("backbone", detector.backbone)
    keep_norm_statistics(detector)
    norm = detector.get_submodule("backbone.first.1")
    assert not norm.training
    assert detector.get_submodule("backbone.first.3").training
    assert norm.weight.requires_grad  # type: ignore[union-attr]
