"""Online hard example mining."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import reference
import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses import ohem
from singleshot.losses.criterion import Criterion
from singleshot.losses.ohem import OHEMLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy
from singleshot.matchers import IoUMatcher
from singleshot.ops import greedy
from singleshot.structures import Anchors, Matched, Targets


def boxes_of(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator) * 60
    return torch.cat([low, low + torch.rand(*shape, 2, generator=generator) * 30 + 5], -1)


def matched_of(anchors: Tensor, positive: Tensor, counted: Tensor | None = None) -> Matched:
    boxes = anchors.expand(*positive.shape, 4)
    counted = torch.ones_like(positive) if counted is None else counted
    return Matched(anchors, boxes, torch.zeros_like(positive, dtype=torch.int64), positive, counted)


def test_worked_by_hand() -> None:
    # Four anchors: 0 and 1 overlap (IoU 8/12), 2 and 3 stand apart. Losses as negatives: log(1 + e^x).
    anchors = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10], [50.0, 0, 60, 10], [80.0, 0, 90, 10]])
    logits = torch.tensor([[[3.0], [2.0], [1.0], [-1.0]]])
    matched = matched_of(anchors, torch.zeros(1, 4, dtype=torch.bool))

    def ce(x: float) -> float:
        return math.log(1 + math.exp(x))

    for loss, expected in [
        (OHEMLoss(batch_size=2, nms=0.5), (ce(3) + ce(1), 2)),  # 1 is suppressed by 0
        (OHEMLoss(batch_size=2, nms=0.7), (ce(3) + ce(2), 2)),
        (OHEMLoss(batch_size=2, nms=None), (ce(3) + ce(2), 2)),
        (OHEMLoss(batch_size=9, nms=0.5), (ce(3) + ce(1) + ce(-1), 3)),
        (OHEMLoss(batch_size=9, nms=0.5, candidates=2), (ce(3), 1)),
    ]:
        total, count = loss({"class_logits": logits}, matched)
        assert total.item() == pytest.approx(expected[0]), loss
        assert count == expected[1], loss


def test_the_loss_of_an_anchor_is_summed_over_its_classes() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [50.0, 0, 60, 10]])
    logits = torch.tensor([[[2.0, -9.0, -9.0], [1.0, 1.0, 1.0]]])  # one class wrong by much, or three by a little
    total, _ = OHEMLoss(batch_size=1)(
        {"class_logits": logits}, matched_of(anchors, torch.zeros(1, 2, dtype=torch.bool))
    )
    assert total.item() == pytest.approx(3 * math.log(1 + math.e))


def slow_choice(loss: OHEMLoss, losses: list[float], matched: Matched, i: int) -> set[int]:
    """The definition, one image, with Python's lists."""
    positives = [a for a in range(len(losses)) if matched.positive[i, a]]
    eligible = [a for a in range(len(losses)) if matched.counted[i, a] and not (loss.keep_positives and a in positives)]
    ranked = sorted(eligible, key=lambda a: -losses[a])[: loss.candidates]
    if loss.nms is not None:
        boxes = [matched.anchors[a].tolist() for a in ranked]
        ranked = [ranked[k] for k in reference.greedy_nms(boxes, [losses[a] for a in ranked], loss.nms)]
    if loss.ratio is None:
        return set(ranked[: loss.batch_size])
    if not loss.keep_positives:
        shown = [a for a in ranked if a in positives][: max(1, int(loss.batch_size / (1 + loss.ratio)))]
        others = [a for a in ranked if a not in positives]
        return {*shown, *others[: min(int(loss.ratio * len(shown)), loss.batch_size - len(shown))]}
    share = int(loss.batch_size * loss.ratio / (1 + loss.ratio))
    return set(positives) | set(ranked[: min(share, int(loss.ratio * len(positives)))])


@pytest.mark.parametrize(("chunk", "first"), [(8, 1), (1024, 16), (64, 1024)])
@pytest.mark.parametrize(
    "loss",
    [
        OHEMLoss(batch_size=10, nms=0.5),
        OHEMLoss(batch_size=10, nms=0.2, candidates=30),
        OHEMLoss(batch_size=1000, nms=0.7),
        OHEMLoss(batch_size=7, nms=None),
        OHEMLoss(batch_size=100, nms=0.3, ratio=3.0),
        OHEMLoss(batch_size=10, nms=0.5, ratio=3.0),
        OHEMLoss(batch_size=50, nms=None, ratio=1.5),
        OHEMLoss(batch_size=50, ratio=0.0),
        OHEMLoss(batch_size=12, nms=0.5, ratio=3.0, candidates=20),
        OHEMLoss(batch_size=2, nms=0.5, ratio=3.0),
        OHEMLoss(batch_size=100, nms=0.3, ratio=3.0, keep_positives=True),
        OHEMLoss(batch_size=10, nms=0.5, ratio=3.0, keep_positives=True),
        OHEMLoss(batch_size=50, nms=None, ratio=1.5, keep_positives=True),
        OHEMLoss(batch_size=50, ratio=0.0, keep_positives=True, candidates=15),
    ],
    ids=repr,
)
def test_chooses_as_the_definition_says(
    loss: OHEMLoss, chunk: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "_FIRST", chunk)
    monkeypatch.setattr(ohem, "_FIRST", first)
    generator = torch.Generator().manual_seed(3)
    positive = torch.rand(3, 90, generator=generator) < torch.tensor([[0.0], [0.05], [0.3]])
    counted = positive | (torch.rand(3, 90, generator=generator) < 0.9)
    matched = matched_of(boxes_of(90), positive, counted)
    losses = torch.rand(3, 90, generator=generator)
    chosen = loss.choose(losses, matched)
    for i in range(3):
        assert set(chosen[i].nonzero()[:, 0].tolist()) == slow_choice(loss, losses[i].tolist(), matched, i)


def test_anchors_of_each_image() -> None:
    positive = torch.zeros(2, 40, dtype=torch.bool)
    anchors, losses = boxes_of(2, 40), torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
    together = replace(matched_of(anchors[0], positive), anchors=anchors)
    chosen = OHEMLoss(batch_size=9).choose(losses, together)
    for i in range(2):
        alone = OHEMLoss(batch_size=9).choose(losses[i : i + 1], matched_of(anchors[i], positive[:1]))
        assert torch.equal(chosen[i], alone[0])


def test_the_gradient_is_that_of_the_chosen_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 60, 4, generator=generator, requires_grad=True)
    matched = matched_of(boxes_of(60), torch.rand(2, 60, generator=generator) < 0.1)
    loss = OHEMLoss(batch_size=8)
    total, count = loss({"class_logits": logits}, matched)
    (gradient,) = torch.autograd.grad(total, logits)
    every = BalancedCrossEntropy(alpha=None)
    chosen = loss.choose(every.anchor_losses({"class_logits": logits}, matched).detach(), matched)
    only = every({"class_logits": logits}, replace(matched, counted=chosen))
    (expected,) = torch.autograd.grad(only, logits)
    torch.testing.assert_close(total, only)
    assert torch.equal(gradient, expected)
    assert count == chosen.sum() == 16


def test_one_to_three_by_hand() -> None:
    """Losses fall from anchor to anchor. 0 and 1 lie on one another, 0 the harder; all others stand apart."""
    low = torch.tensor([0.0, 0, *range(20, 200, 20)])[:, None] * torch.tensor([[1.0, 0.0]])
    anchors = torch.cat([low, low + 10], 1)  # 11 of them
    losses = torch.arange(11.0, 0, -1)[None]

    def chosen(positives: list[int], **arguments: Any) -> list[int]:
        positive = torch.zeros(1, 11, dtype=torch.bool)
        positive[0, positives] = True
        loss = OHEMLoss(**{"batch_size": 8, "nms": 0.5, "ratio": 3.0, **arguments})
        return loss.choose(losses, matched_of(anchors, positive))[0].nonzero()[:, 0].tolist()

    assert chosen([4]) == [0, 2, 3, 4]  # three negatives for the one positive; 1 is suppressed by 0
    assert chosen([1]) == []  # the positive itself is suppressed, by a harder negative
    assert chosen([0]) == [0, 2, 3, 4]  # here it suppresses the negative
    assert chosen([2, 5, 8]) == [0, 2, 3, 4, 5, 6, 7, 9]  # two of three positives: a quarter of the batch of 8
    assert chosen([9, 10]) == [0, 2, 3, 4, 5, 6, 9, 10]  # easy ones too
    assert chosen([9, 10], candidates=6) == []  # not within a limit that they do not reach
    assert chosen([2, 5, 8], nms=None) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert chosen([]) == []


def test_the_batch_is_never_larger_than_it_says() -> None:
    """With positives outside of NMS and batch, a batch of 8 once chose 14 anchors."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(6, 90, generator=generator) < 0.1
    matched, losses = matched_of(boxes_of(90), positive), torch.rand(6, 90, generator=generator)
    paper = OHEMLoss(batch_size=8, ratio=3.0).choose(losses, matched)
    assert paper.sum(1).max() == 8
    assert ((paper & ~positive).sum(1) == 3 * (paper & positive).sum(1)).all()
    kept = OHEMLoss(batch_size=8, ratio=3.0, keep_positives=True).choose(losses, matched)
    assert (kept & positive).sum() == positive.sum()
    assert kept.sum(1).max() >= 14


def test_a_limit_of_candidates_matters_only_beyond_it() -> None:
    """The hardest are looked at first, so whoever fills the batch is the same with and without a limit."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.rand(2, 3000, generator=generator) < 0.02
    matched, losses = matched_of(boxes_of(3000), positive), torch.rand(2, 3000, generator=generator)
    every = OHEMLoss(batch_size=16, ratio=3.0).choose(losses, matched)
    assert torch.equal(OHEMLoss(batch_size=16, ratio=3.0, candidates=2000).choose(losses, matched), every)
    assert every.sum(1).tolist() == [16, 16]
    assert (OHEMLoss(batch_size=16, ratio=3.0, candidates=20).choose(losses, matched).sum(1) < 16).all()


def test_all_positives_come_first_when_they_are_kept() -> None:
    # All 20 anchors lie on one another, so that NMS leaves one; the positives are kept all the same.
    anchors = torch.tensor([[0.0, 0, 10, 10]]).expand(20, 4)
    positive = torch.arange(20)[None] < 6
    loss = OHEMLoss(batch_size=4, nms=0.5, ratio=3.0, keep_positives=True)
    chosen = loss.choose(torch.rand(1, 20), matched_of(anchors, positive))
    assert chosen[0, :6].all()
    assert chosen[0, 6:].sum() == 1


def test_divided_by_the_number_of_the_chosen() -> None:
    low = torch.arange(9.0)[:, None] * torch.tensor([[20.0, 0.0]])
    anchors = Anchors(torch.cat([low, low + 10], 1), (9,))
    targets = Targets(
        anchors.boxes[None, :1], torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.bool)
    )
    criterion = Criterion(IoUMatcher(), {"classification": OHEMLoss(batch_size=4)}, DeltaCoder())
    losses = criterion({"class_logits": torch.zeros(1, 9, 3)}, anchors, targets)
    torch.testing.assert_close(losses["classification"], torch.tensor(3 * math.log(2)))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"candidates": 0}, "candidates"),
        ({"nms": 1.5}, "nms"),
        ({"ratio": -1.0}, "ratio"),
        ({"keep_positives": True}, "keep_positives"),
        ({"prior": 0.0}, "prior"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, float], word: str) -> None:
    with pytest.raises(UserError, match=f"OHEMLoss: .*{word}"):
        OHEMLoss(**wrong)  # type: ignore[arg-type]
