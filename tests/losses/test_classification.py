"""Softmax loss with hard negative mining."""

from __future__ import annotations

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.losses.classification import SoftmaxLoss, hardest
from singleshot.structures import Matched


def matched_of(positive: Tensor, labels: Tensor, counted: Tensor | None = None) -> Matched:
    anchors = torch.zeros(positive.shape[1], 4)
    boxes = torch.zeros(*positive.shape, 4)
    return Matched(anchors, boxes, labels, positive, torch.ones_like(positive) if counted is None else counted)


def random_case(seed: int, batch: int = 3, anchors: int = 40, classes: int = 4) -> tuple[Tensor, Matched]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, anchors, classes + 1, generator=generator) * 3
    positive = torch.rand(batch, anchors, generator=generator) < torch.tensor([[0.0], [0.1], [0.4]])
    counted = positive | (torch.rand(batch, anchors, generator=generator) < 0.8)
    labels = torch.randint(0, classes, (batch, anchors), generator=generator) * positive
    return logits, matched_of(positive, labels, counted)


def test_worked_by_hand() -> None:
    # One positive of class 0 and four negatives; three of them are taken, those least sure of the background (last).
    logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    positive = torch.tensor([[True, False, False, False, False]])
    e = torch.tensor(1.0).exp()
    log = torch.log
    expected = (
        log(e**2 + 2) - 2  # anchor 0 as class 0
        + log(e**3 + 2)  # anchor 2, hardest
        + log(e + 2)  # anchor 4
        + log(torch.tensor(3.0))  # anchor 3; anchor 1 is too easy
    )  # fmt: skip
    loss = SoftmaxLoss()({"class_logits": logits}, matched_of(positive, torch.zeros(1, 5, dtype=torch.int64)))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_form(seed: int) -> None:
    logits, matched = random_case(seed)
    expected = 0.0
    for i in range(3):
        positives = matched.positive[i].nonzero()[:, 0].tolist()
        expected += sum(reference.cross_entropy(logits[i, a].tolist(), int(matched.labels[i, a])) for a in positives)
        losses = [reference.cross_entropy(row, 4) for row in logits[i].tolist()]
        eligible = (matched.counted[i] & ~matched.positive[i]).tolist()
        expected += sum(losses[a] for a in reference.hard_negatives(losses, eligible, 3 * len(positives)))
    loss = SoftmaxLoss()({"class_logits": logits}, matched)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_without_negatives_it_is_cross_entropy() -> None:
    logits, matched = random_case(1)
    everything = matched_of(torch.ones_like(matched.positive), matched.labels)
    expected = F.cross_entropy(logits.reshape(-1, 5), everything.labels.reshape(-1), reduction="sum")
    torch.testing.assert_close(SoftmaxLoss()({"class_logits": logits}, everything), expected)


def test_an_image_without_positives_has_no_negatives() -> None:
    logits = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive[1, 0] = True
    loss = SoftmaxLoss()({"class_logits": logits}, matched_of(positive, torch.zeros(2, 6, dtype=torch.int64)))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0] == 0).all()
    assert (gradient[1].abs().sum(-1) > 0).sum() == 4  # one positive, three negatives


def test_a_batch_without_any_object_is_exactly_0_with_gradients() -> None:
    logits = torch.randn(2, 6, 3, requires_grad=True)
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    loss = SoftmaxLoss()({"class_logits": logits}, matched_of(nothing, nothing.long()))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert (gradient == 0).all()


def test_no_anchors() -> None:
    nothing = torch.zeros(2, 0, dtype=torch.bool)
    assert SoftmaxLoss()({"class_logits": torch.zeros(2, 0, 3)}, matched_of(nothing, nothing.long())) == 0


def test_infinite_logits_of_anchors_that_do_not_count_do_no_harm() -> None:
    logits = torch.zeros(1, 3, 2)
    logits[0, 2] = torch.tensor([torch.inf, -torch.inf])
    counted = torch.tensor([[True, True, False]])
    loss = SoftmaxLoss()(
        {"class_logits": logits},
        matched_of(torch.tensor([[True, False, False]]), torch.zeros(1, 3, dtype=torch.int64), counted),
    )
    torch.testing.assert_close(loss, 2 * torch.tensor(2.0).log())


def test_very_large_logits_stay_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]]])
    loss = SoftmaxLoss()({"class_logits": logits}, matched_of(torch.tensor([[True, False]]), torch.tensor([[1, 0]])))
    assert loss == 2e4


class TestMining:
    def test_three_to_one_in_each_image(self) -> None:
        loss = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
        positives = torch.tensor([0, 2, 5])
        chosen = hardest(loss, torch.ones(3, 50, dtype=torch.bool), 3.0 * positives)
        assert chosen.sum(1).tolist() == [0, 6, 15]
        for i in range(3):
            assert set(chosen[i].nonzero()[:, 0].tolist()) == reference.hard_negatives(
                loss[i].tolist(), [True] * 50, 3 * int(positives[i])
            )

    def test_only_the_eligible_and_no_more_than_there_are(self) -> None:
        loss = torch.tensor([[9.0, 1.0, 8.0, 2.0]])
        eligible = torch.tensor([[False, True, False, True]])
        assert hardest(loss, eligible, torch.tensor([1])).tolist() == [[False, False, False, True]]
        assert hardest(loss, eligible, torch.tensor([30])).tolist() == eligible.tolist()

    def test_equal_losses_do_not_exceed_the_number(self) -> None:
        chosen = hardest(torch.zeros(2, 20), torch.ones(2, 20, dtype=torch.bool), torch.tensor([3, 7]))
        assert chosen.sum(1).tolist() == [3, 7]

    @pytest.mark.parametrize(("ratio", "number"), [(0.0, 0), (0.4, 0), (1.0, 1), (2.5, 2), (3.0, 3)])
    def test_at_most_the_ratio(self, ratio: float, number: int) -> None:
        logits = torch.zeros(1, 12, 2, requires_grad=True)
        positive = torch.arange(12)[None] == 5
        loss = SoftmaxLoss(ratio=ratio)({"class_logits": logits}, matched_of(positive, torch.zeros(1, 12).long()))
        torch.testing.assert_close(loss, (1 + number) * torch.tensor(2.0).log())

    def test_gives_no_gradient_through_the_choice(self) -> None:
        loss = torch.rand(1, 5, requires_grad=True)
        assert not hardest(loss, torch.ones(1, 5, dtype=torch.bool), torch.tensor([2])).requires_grad


def test_link() -> None:
    loss = SoftmaxLoss()
    assert loss.num_logits(20) == 21
    assert loss.initial_bias == 0
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    probabilities = loss.probabilities(logits)
    assert probabilities.shape == (2, 5, 3)
    torch.testing.assert_close(probabilities.sum(-1) + logits.softmax(-1)[..., -1], torch.ones(2, 5))
