"""The average of the weights, worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from singleshot.training.ema import Average


def test_by_hand() -> None:
    """With ramp 10: d = 0.1 at step 0, 2/11 at step 1; with decay 0.15 the second is cut to 0.15."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    average = Average(layer, decay=0.15, ramp=10)
    nn.init.constant_(layer.weight, 1.0)
    average.update(layer, 0)
    assert average.detector.weight.item() == pytest.approx(0.9)
    nn.init.constant_(layer.weight, 2.0)
    average.update(layer, 1)
    assert average.detector.weight.item() == pytest.approx(0.15 * 0.9 + 0.85 * 2)
    assert layer.weight.item() == 2.0


def test_of_a_constant_is_the_constant() -> None:
    layer = nn.Linear(3, 3)
    average = Average(layer, decay=0.99)
    for step in range(5):
        average.update(layer, step)
    torch.testing.assert_close(average.detector.weight, layer.weight)


def test_statistics_follow_and_counters_are_copied() -> None:
    norm = nn.BatchNorm1d(1)
    average = Average(norm, decay=0.5, ramp=1)
    norm.train()(torch.tensor([[1.0], [3.0]]))
    average.update(norm, 10)
    assert average.detector.running_mean is not None
    assert average.detector.running_mean.item() == pytest.approx(0.1)  # half of 0.2, momentum 0.1 of the mean 2
    assert average.detector.num_batches_tracked is not None
    assert average.detector.num_batches_tracked.item() == 1
    assert not average.detector.training
    assert not any(parameter.requires_grad for parameter in average.detector.parameters())
