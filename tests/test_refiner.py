"""RefineDet's first module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from singleshot.coders import DeltaCoder
from singleshot.refiner import DELTAS, LOGITS, AnchorRefiner
from singleshot.structures import Anchors, Targets

CODER = DeltaCoder((0.1, 0.2))
BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 5, 25, 15], [40, 40, 60, 60], [0, 30, 20, 50]])
ANCHORS = Anchors(BOXES, (4,))


def refiner(theta: float = 0.99, iou: tuple[float, float] = (0.5, 0.5)) -> AnchorRefiner:
    return AnchorRefiner(nn.Identity(), CODER, theta=theta, iou=iou)


def predictions(logits: Tensor, deltas: Tensor | None = None) -> dict[str, Tensor]:
    deltas = torch.zeros(*logits.shape[:2], 4) if deltas is None else deltas
    return {LOGITS: logits.requires_grad_(), DELTAS: deltas.requires_grad_()}


def test_moves_anchors_and_lets_no_gradient_through() -> None:
    deltas = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    anchors, keep = refiner().refine(predictions(torch.zeros(2, 4, 2), deltas), ANCHORS)
    torch.testing.assert_close(anchors.boxes, CODER.decode(deltas, BOXES))
    assert anchors.boxes.shape == (2, 4, 4)
    assert not anchors.boxes.requires_grad
    assert keep.all()
    assert anchors.counts == ANCHORS.counts


def test_filter_keeps_an_objectness_of_one_minus_theta() -> None:
    """0.0099 of object is filtered at theta 0.99, 0.0101 is not."""
    shares = torch.tensor([[0.0099, 0.0101, 0.5, 0.0]])
    logits = torch.stack([shares.log(), (1 - shares).log()], -1)
    assert refiner().refine(predictions(logits), ANCHORS)[1].tolist() == [[False, True, True, False]]
    assert refiner(theta=1.0).refine(predictions(logits), ANCHORS)[1].all()
    assert refiner(theta=0.4).refine(predictions(logits), ANCHORS)[1].sum() == 0


def test_every_object_is_of_one_class() -> None:
    logits = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
    truth = {"boxes": torch.tensor([[0.0, 0, 10, 9], [41, 41, 60, 60]])}
    found = [
        refiner().losses(predictions(logits.clone()), ANCHORS, Targets.from_list([{**truth, "labels": labels}]))
        for labels in (torch.tensor([0, 0]), torch.tensor([7, 3]))
    ]
    assert set(found[0]) == {"anchor_classification", "anchor_box"}
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_own_thresholds() -> None:
    truth = Targets.from_list([{"boxes": torch.tensor([[0.0, 0, 10, 6]]), "labels": torch.tensor([0])}])
    usual, strict = (refiner(iou=iou).criterion.matcher(ANCHORS, truth) for iou in ((0.5, 0.5), (0.7, 0.3)))
    # IoU 0.6 with the first anchor: forced in both; the others are negatives, as they overlap less than 0.3.
    assert usual.positive[0].tolist() == strict.positive[0].tolist() == [True, False, False, False]
    near = Targets.from_list([{"boxes": torch.tensor([[0.0, 0, 10, 10], [5.0, 5, 25, 15]]), "labels": torch.zeros(2)}])
    boxes = torch.cat([BOXES, torch.tensor([[0.0, 0, 10, 6]])])
    some = Anchors(boxes, (5,))
    assert refiner(iou=(0.5, 0.5)).criterion.matcher(some, near).positive[0, 4]
    middle = refiner(iou=(0.7, 0.3)).criterion.matcher(some, near)
    assert not middle.positive[0, 4]
    assert not middle.counted[0, 4]


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_deltas_stay_finite(extreme: float) -> None:
    moved = refiner().refine(predictions(torch.zeros(1, 4, 2), torch.full((1, 4, 4), extreme)), ANCHORS)[0].boxes
    assert moved.isfinite().all()
    assert (moved[..., 2:] >= moved[..., :2]).all()
