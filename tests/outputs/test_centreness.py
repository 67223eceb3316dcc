"""Centre-ness, FCOS's extra output."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from torch import Tensor

from singleshot.outputs.centreness import Centreness, centreness_loss
from singleshot.structures import Matched


def case(
    anchors: list[list[float]], boxes: list[list[float]], logits: list[float]
) -> tuple[dict[str, Tensor], Matched]:
    """Positive anchors of one image."""
    true = torch.ones(1, len(anchors), dtype=torch.bool)
    predictions = {"centreness_logits": torch.tensor(logits)[None, :, None].requires_grad_()}
    return predictions, Matched(
        torch.tensor(anchors), torch.tensor([boxes]), torch.zeros(1, len(anchors)).long(), true, true
    )


def test_worked_by_hand() -> None:
    # The centre (5, 5) is 5 from the left side and 15 from the right, 5 from the top and 5 from the bottom: sqrt(1/3).
    predictions, matched = case([[0.0, 0, 10, 10]], [[0.0, 0, 20, 10]], [math.log(3)])
    t = math.sqrt(1 / 3)
    expected = -t * math.log(0.75) - (1 - t) * math.log(0.25)
    assert centreness_loss(predictions, matched).item() == pytest.approx(expected, rel=1e-6)


def test_1_in_the_middle_and_0_at_the_side_and_outside() -> None:
    box = [10.0, 10, 30, 50]
    for anchor, target in (([15.0, 25, 25, 35], 1.0), ([5.0, 25, 15, 35], 0.0), ([0.0, 25, 10, 35], 0.0)):
        predictions, matched = case([anchor], [box], [1.3])
        expected = math.log1p(math.exp(-1.3)) if target else math.log1p(math.exp(1.3))
        assert centreness_loss(predictions, matched).item() == pytest.approx(expected, rel=1e-5)


def test_equals_the_slow_form() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(30, 2, generator=generator) * 20
    anchors = torch.cat([low, low + torch.rand(30, 2, generator=generator) * 20 + 1], 1)
    boxes = anchors + torch.randn(2, 30, 4, generator=generator).sort(-1).values * 4
    positive = torch.rand(2, 30, generator=generator) < 0.5
    logits = torch.randn(2, 30, 1, generator=generator)
    matched = Matched(anchors, boxes, torch.zeros(2, 30).long(), positive, torch.ones_like(positive))
    expected = 0.0
    for i, a in positive.nonzero().tolist():
        t = reference.centreness(anchors[a].tolist(), boxes[i, a].tolist())
        p = 1 / (1 + math.exp(-logits[i, a, 0].item()))
        expected += -t * math.log(p) - (1 - t) * math.log(1 - p)
    assert centreness_loss({"centreness_logits": logits}, matched).item() == pytest.approx(expected, rel=1e-4)
    each = replace(matched, anchors=anchors.expand(2, -1, -1))  # refined anchors are each image's own
    assert centreness_loss({"centreness_logits": logits}, each).item() == pytest.approx(expected, rel=1e-4)


def test_gradient_is_prediction_less_target() -> None:
    predictions, matched = case([[0.0, 0, 10, 10]], [[0.0, 0, 20, 10]], [0.4])
    (gradient,) = torch.autograd.grad(centreness_loss(predictions, matched), predictions["centreness_logits"])
    assert gradient.item() == pytest.approx(1 / (1 + math.exp(-0.4)) - math.sqrt(1 / 3), rel=1e-5)


def test_boxes_without_area_that_are_not_positive_do_no_harm() -> None:
    predictions, matched = case([[5.0, 5, 5, 5], [0.0, 0, 10, 10]], [[5.0, 5, 5, 5], [0.0, 0, 20, 10]], [0.4, 0.4])
    matched = replace(matched, positive=torch.tensor([[False, True]]))
    loss = centreness_loss(predictions, matched)
    (gradient,) = torch.autograd.grad(loss, predictions["centreness_logits"])
    assert loss.isfinite()
    assert gradient[0, 0] == 0
    assert gradient[0, 1] != 0


def test_without_positives_exactly_0_with_gradients() -> None:
    predictions, matched = case([[0.0, 0, 10, 10]], [[0.0, 0, 20, 10]], [0.4])
    loss = centreness_loss(predictions, replace(matched, positive=~matched.positive))
    (gradient,) = torch.autograd.grad(loss, predictions["centreness_logits"])
    assert loss == 0
    assert (gradient == 0).all()


def test_the_file_is_as_short_as_the_page_says() -> None:
    lines = (
        (Path(__file__).parents[2] / "src/singleshot/outputs/centreness.py").read_text(encoding="utf-8").splitlines()
    )
    assert len(lines) <= 25


def test_multiplied_into_the_score() -> None:
    from singleshot.losses.focal import FocalLoss
    from singleshot.postprocess import ClassScores

    scores: Any = ClassScores(FocalLoss(), (Centreness().output(),))
    predictions = {"class_logits": torch.tensor([[[0.0, 1.0]]]), "centreness_logits": torch.tensor([[[-0.5]]])}
    expected = predictions["class_logits"].sigmoid() * predictions["centreness_logits"].sigmoid()
    assert torch.equal(scores(predictions), expected)
