"""What holds for every classification loss, whatever it computes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.detectors.parts import restore_argument, store_argument
from singleshot.losses import CLASSIFICATION_LOSSES
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.criterion import Criterion
from singleshot.losses.focal import FocalLoss, FocalStarLoss
from singleshot.losses.ohem import OHEMLoss
from singleshot.losses.quality_focal import QualityFocalLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy, HingeLoss
from singleshot.losses.varifocal import VarifocalLoss
from singleshot.matchers import IoUMatcher
from singleshot.structures import Anchors, Matched, Targets

LOSSES: list[Any] = [
    FocalLoss(),
    FocalLoss(alpha=0.75, gamma=0.0),
    FocalLoss(alpha=None, gamma=0.5),
    BalancedCrossEntropy(),
    BalancedCrossEntropy(alpha=None),
    FocalStarLoss(),
    FocalStarLoss(gamma=4.0, beta=0.0),
    HingeLoss(),
    HingeLoss(alpha=0.25, margin=0.9),
    OHEMLoss(batch_size=6),
    OHEMLoss(batch_size=6, nms=None),
    OHEMLoss(batch_size=60, ratio=3.0),
    OHEMLoss(batch_size=60, ratio=3.0, keep_positives=True),
    SoftmaxLoss(),
    QualityFocalLoss(),
    QualityFocalLoss(beta=0.0),
    QualityFocalLoss(beta=0.5),
    VarifocalLoss(),
    VarifocalLoss(alpha=0.25, gamma=0.0),
]
CLASSES = 4
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def case(loss: Any, batch: int = 3, anchors: int = 50, seed: int = 0) -> tuple[Tensor, Matched]:
    """Logits with gradients; anchors that are positive, negative and ignored in each image."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, anchors, loss.num_logits(CLASSES), generator=generator) * 3
    positive = torch.rand(batch, anchors, generator=generator) < 0.1
    positive[:, 0] = True
    counted = positive | (torch.rand(batch, anchors, generator=generator) < 0.8)
    counted[:, -1] = positive[:, -1] = False
    labels = torch.randint(0, CLASSES, (batch, anchors), generator=generator) * positive
    low = torch.rand(anchors, 2, generator=generator) * 100
    boxes = torch.cat([low, low + torch.rand(anchors, 2, generator=generator) * 40 + 1], 1)
    # The objects lie a little beside their anchors: said where the anchor is, boxes have IoUs between 0 and 1.
    objects = boxes + torch.randn(batch, anchors, 4, generator=generator).sort(-1).values * positive[..., None]
    matched = Matched(boxes, objects, labels, positive, counted, DeltaCoder())
    return logits.requires_grad_(), matched


def total(loss: Any, logits: Tensor, matched: Matched) -> Tensor:
    value = loss(said(logits), matched)
    return value[0] if isinstance(value, tuple) else value


def said(logits: Tensor, key: str = "class_logits") -> dict[str, Tensor]:
    """Predictions with these logits; every box is said to lie where the anchor is."""
    return {key: logits, "box_deltas": logits.new_zeros(*logits.shape[:2], 4)}


def with_gradient(loss: Any, logits: Tensor, matched: Matched) -> tuple[Tensor, Tensor]:
    value = total(loss, logits, matched)
    (gradient,) = torch.autograd.grad(value, logits)
    return value, gradient


def test_every_loss_of_the_table_is_here() -> None:
    assert {type(loss).__name__ for loss in LOSSES} == set(CLASSIFICATION_LOSSES)


@every_loss
def test_the_sum_has_no_shape_and_the_count_is_a_float(loss: Any) -> None:
    logits, matched = case(loss)
    value = loss(said(logits), matched)
    for part in value if isinstance(value, tuple) else (value,):
        assert part.shape == ()
        assert part.dtype == torch.float32
    if isinstance(value, tuple):
        assert value[1] == value[1].round()
        assert not value[1].requires_grad


@every_loss
@pytest.mark.parametrize("size", [100.0, -100.0, 1e4])
def test_finite_at_extreme_logits(loss: Any, size: float) -> None:
    logits, matched = case(loss)
    for extreme in (torch.full_like(logits, size), logits.detach().sign() * size):
        value, gradient = with_gradient(loss, extreme.requires_grad_(), matched)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().max() <= 2  # none of these curves is much steeper than 1


@every_loss
def test_all_right_with_certainty_costs_nothing_and_all_wrong_much(loss: Any) -> None:
    logits, matched = case(loss)
    anchors = matched.anchors.round()  # whole numbers: the IoU of a box with itself is exactly 1
    matched = replace(matched, anchors=anchors, boxes=anchors.expand_as(matched.boxes))
    true = matched.labels if loss.num_logits(1) == 1 else torch.where(matched.positive, matched.labels, CLASSES)
    hot = torch.nn.functional.one_hot(true, logits.shape[-1]).bool()
    if loss.num_logits(1) == 1:
        hot &= matched.positive[..., None]
    right = torch.where(hot, 100.0, -100.0)
    assert total(loss, right, matched) < 1e-30
    assert total(loss, -right, matched) > 5


@every_loss
def test_all_ignored(loss: Any) -> None:
    logits, matched = case(loss)
    nothing = torch.zeros_like(matched.positive)
    value, gradient = with_gradient(loss, logits, replace(matched, positive=nothing, counted=nothing))
    assert value == 0
    assert (gradient == 0).all()


@every_loss
def test_ignored_anchors_have_no_gradient_and_no_say(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    assert (gradient[~matched.counted] == 0).all()
    assert (gradient[matched.positive].abs().sum(-1) > 0).any()
    for other in (50.0, -50.0, torch.inf, -torch.inf, torch.nan):
        changed = torch.where(matched.counted[..., None], logits.detach(), other).requires_grad_()
        again, its_gradient = with_gradient(loss, changed, matched)
        assert again == value
        assert torch.equal(its_gradient, gradient)


@every_loss
def test_no_positives(loss: Any) -> None:
    logits, matched = case(loss)
    nothing = torch.zeros_like(matched.positive)
    value, gradient = with_gradient(loss, logits, replace(matched, positive=nothing, labels=nothing.long()))
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert (value == 0) == (getattr(loss, "ratio", None) is not None)  # a share of no positives is nothing
    assert (gradient >= 0).all()  # every class is pushed down


@every_loss
def test_no_anchors_and_no_images(loss: Any) -> None:
    for batch, anchors in ((2, 0), (0, 5)):
        none = torch.zeros(batch, anchors, dtype=torch.bool)
        boxes = torch.zeros(anchors, 4)
        matched = Matched(boxes, boxes.expand(batch, anchors, 4), none.long(), none, none, DeltaCoder())
        logits = torch.zeros(batch, anchors, loss.num_logits(CLASSES), requires_grad=True)
        value, gradient = with_gradient(loss, logits, matched)
        assert value == 0
        assert gradient.shape == logits.shape


@every_loss
def test_one_pixel_targets(loss: Any) -> None:
    low = torch.arange(20.0)[:, None].expand(20, 2) * 4
    anchors = Anchors(torch.cat([low, low + 16], 1), (20,))
    boxes = torch.tensor(
        [[[7.0, 7.0, 8.0, 8.0], [40.0, 41.0, 41.0, 42.0]], [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]
    )
    targets = Targets(boxes, torch.tensor([[1, 3], [0, -1]]), torch.zeros(2, 2, dtype=torch.bool))
    logits = torch.full((2, 20, loss.num_logits(CLASSES)), -0.5, requires_grad=True)
    criterion = Criterion(IoUMatcher(positive=0.5, negative=0.4), {"classification": loss}, DeltaCoder())
    predictions = {"class_logits": logits, "box_deltas": criterion.match(anchors, targets).encoded()}  # all are right
    value = criterion(predictions, anchors, targets)["classification"]
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if not isinstance(loss, OHEMLoss) or loss.ratio is not None:
        assert value > 0
        assert (gradient[0, :, 1] < 0).any()  # the object's class is pulled up somewhere
        assert (gradient[0, :, 3] < 0).any()


@every_loss
def test_images_stand_alone(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    alone = []
    for i in range(3):
        one = slice(i, i + 1)
        parts = (matched.boxes, matched.labels, matched.positive, matched.counted)
        its = Matched(matched.anchors, *(part[one] for part in parts), matched.coder)
        its_value, its_gradient = with_gradient(loss, logits[one].detach().requires_grad_(), its)
        alone.append(its_value)
        torch.testing.assert_close(gradient[one], its_gradient)
    torch.testing.assert_close(value, torch.stack(alone).sum())


@every_loss
def test_anchors_in_any_order(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    shuffled = Matched(
        matched.anchors[order],
        matched.boxes[:, order],
        matched.labels[:, order],
        matched.positive[:, order],
        matched.counted[:, order],
        matched.coder,
    )
    again, its_gradient = with_gradient(loss, logits[:, order].detach().requires_grad_(), shuffled)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(its_gradient, gradient[:, order])


@every_loss
def test_classes_in_any_order(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    order = torch.tensor([2, 0, 3, 1, *range(CLASSES, logits.shape[-1])])  # logit k is that of class order[k]
    shuffled = replace(matched, labels=order.argsort()[matched.labels] * matched.positive)
    again, its_gradient = with_gradient(loss, logits[..., order].detach().requires_grad_(), shuffled)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(its_gradient, gradient[..., order])


@every_loss
def test_gradient_is_that_of_the_value(loss: Any) -> None:
    logits, matched = case(loss, batch=2, anchors=7)
    double = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: total(loss, x, matched), (double,))


@every_loss
def test_a_step_downhill_lowers_the_loss(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    assert total(loss, logits.detach() - 0.01 * gradient, matched) < value


@every_loss
def test_a_retained_graph_gives_the_same_twice(loss: Any) -> None:
    logits, matched = case(loss)
    value = total(loss, logits, matched) * 3
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(value, logits)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, kept, rtol=1e-6, atol=0.0)


@every_loss
def test_without_gradients_the_same_value(loss: Any) -> None:
    logits, matched = case(loss)
    before = logits.detach().clone()
    with torch.no_grad():
        value = total(loss, logits, matched)
    assert not value.requires_grad
    assert value == total(loss, logits, matched)
    assert torch.equal(logits, before)


@every_loss
def test_logits_of_any_layout(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    strided = logits.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    again, its_gradient = with_gradient(loss, strided, matched)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(its_gradient, gradient)


@every_loss
def test_under_autocast_it_stays_float32(loss: Any) -> None:
    logits, matched = case(loss)
    value, gradient = with_gradient(loss, logits, matched)
    with torch.autocast("cpu", torch.bfloat16):
        again, its_gradient = with_gradient(loss, logits, matched)
    assert again.dtype == torch.float32
    assert again == value
    assert torch.equal(its_gradient, gradient)


@every_loss
def test_there_and_back_through_json(loss: Any) -> None:
    plain = store_argument(loss)
    assert plain["type"] == type(loss).__name__
    assert restore_argument(json.loads(json.dumps(plain))) == loss


@every_loss
def test_link(loss: Any) -> None:
    logits = torch.randn(2, 5, loss.num_logits(CLASSES), generator=torch.Generator().manual_seed(0))
    probabilities = loss.probabilities(logits)
    assert probabilities.shape == (2, 5, CLASSES)
    assert (probabilities > 0).all()
    assert (probabilities < 1).all()
    assert math.isfinite(loss.initial_bias)
    with pytest.raises(AttributeError):  # frozen
        loss.key = "other"


@every_loss
def test_another_key(loss: Any) -> None:
    logits, matched = case(loss)
    other = replace(loss, key="refined_logits")(said(logits, "refined_logits"), matched)
    assert (other[0] if isinstance(other, tuple) else other) == total(loss, logits, matched)


@pytest.mark.gpu
@every_loss
def test_on_a_gpu_the_same(loss: Any) -> None:
    logits, matched = case(loss, anchors=3000)
    value, gradient = with_gradient(loss, logits, matched)
    there = Matched(
        matched.anchors.cuda(),
        matched.boxes.cuda(),
        matched.labels.cuda(),
        matched.positive.cuda(),
        matched.counted.cuda(),
        matched.coder,
    )
    again, its_gradient = with_gradient(loss, logits.detach().cuda().requires_grad_(), there)
    torch.testing.assert_close(again.cpu(), value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(its_gradient.cpu(), gradient)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_stays_below_3_times_the_logits() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "loss_memory.py"
    words = ["--scale", "0.1", "--images", "8", "--repeats", "1", "--losses", "FocalLoss"]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert 1 <= result["times_logits"] < 2  # the gradient, and little else
