"""The distribution of the loss over the anchors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

import singleshot
from singleshot.analysis.loss.measure import anchor_losses, link_of, loss_distribution
from singleshot.analysis.loss.result import LossHistogram
from singleshot.analysis.loss.section import HARDEST
from singleshot.analysis.passes import Visit, match, visit_images
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss


@dataclass(frozen=True)
class Sigmoid(SoftmaxLoss):
    """A link of sigmoids; its loss is not asked for."""

    def num_logits(self, num_classes: int) -> int:
        return num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


@dataclass(frozen=True)
class Clamped(Sigmoid):
    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.clamp(0, 1)


@pytest.fixture
def detector(tiny_model: Path) -> Detector:
    return singleshot.load(tiny_model)


@pytest.fixture(scope="module")
def data(tiny_voc: Path) -> singleshot.Dataset:
    return singleshot.open_dataset(tiny_voc, split="train")


class TestAnchorLosses:
    def test_sigmoid_by_hand(self) -> None:
        # p = (0.8, 0.2): as a positive of class 0 both classes are right with 0.8, as a negative the first is with 0.2.
        logits = torch.tensor([[math.log(4), -math.log(4)]]).expand(2, 2)
        found = anchor_losses(logits, torch.tensor([0, 0]), torch.tensor([True, False]), gammas=(0, 2), link="sigmoid")
        easy, hard = -math.log(0.8), -math.log(0.2)
        expected = torch.tensor([[2 * easy, hard + easy], [2 * 0.04 * easy, 0.64 * hard + 0.04 * easy]])
        torch.testing.assert_close(found, expected)

    def test_softmax_by_hand(self) -> None:
        logits = torch.tensor([[0.5, 0.2, 0.3]]).log().expand(2, 3)  # the background is last
        found = anchor_losses(logits, torch.tensor([1, 0]), torch.tensor([True, False]), gammas=(0, 2), link="softmax")
        right = torch.tensor([0.2, 0.3])
        torch.testing.assert_close(found, torch.stack([-right.log(), -((1 - right) ** 2) * right.log()]))

    def test_gamma_0_is_cross_entropy(self) -> None:
        logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * 5
        labels, positive = torch.arange(50) % 4, torch.arange(50) % 3 == 0
        target = torch.where(positive, labels, 4)
        found = anchor_losses(logits, labels, positive, gammas=[0], link="softmax")[0]
        torch.testing.assert_close(found, F.cross_entropy(logits, target, reduction="none"))
        binary = F.one_hot(target, 5)[:, :4].float()
        found = anchor_losses(logits[:, :4], labels, positive, gammas=[0], link="sigmoid")[0]
        torch.testing.assert_close(
            found, F.binary_cross_entropy_with_logits(logits[:, :4], binary, reduction="none").sum(1)
        )

    @pytest.mark.parametrize("link", ["sigmoid", "softmax"])
    def test_finite_at_extremes(self, link: str) -> None:
        logits = torch.tensor([[100.0, -100.0, 100.0], [-100.0, 100.0, -100.0]])
        found = anchor_losses(logits, torch.tensor([1, 1]), torch.tensor([True, True]), gammas=(0, 0.5, 5), link=link)
        assert found.isfinite().all()
        assert (found >= 0).all()
        assert (found[:, 0] > 99).all()

    @pytest.mark.parametrize("link", ["sigmoid", "softmax"])
    def test_no_anchors(self, link: str) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        assert anchor_losses(torch.zeros(0, 3), nothing, nothing.bool(), gammas=(0, 2), link=link).shape == (2, 0)


class TestLink:
    def test_is_found_out(self) -> None:
        assert link_of(Sigmoid(), 3) == "sigmoid"
        assert link_of(SoftmaxLoss(), 3) == "softmax"

    def test_another_is_refused(self) -> None:
        with pytest.raises(UserError, match="Clamped makes neither sigmoids nor a softmax"):
            link_of(Clamped(), 3)


class TestHistogram:
    def test_shares_by_hand(self) -> None:
        # Losses 1, 2, 2, 5: the hardest quarter has 5 of 10, the hardest half 7 (the border is within equals).
        counts, sums = np.zeros((1, 4), np.int64), np.zeros((1, 4))
        counts[0, :3], sums[0, :3] = (1, 2, 1), (1, 4, 5)
        histogram = LossHistogram(counts, sums)
        assert len(histogram) == 4
        fraction, cumulative = histogram.curve(0)
        assert fraction.tolist() == [0, 0.25, 0.75, 1]
        assert cumulative.tolist() == pytest.approx([0, 0.1, 0.5, 1])
        assert [histogram.share(0, part) for part in (0.25, 0.5, 1)] == pytest.approx([0.5, 0.7, 1])

    def test_nothing_has_no_share(self) -> None:
        empty = LossHistogram(np.zeros((1, 4), np.int64), np.zeros((1, 4)))
        assert math.isnan(empty.share(0, 0.1))
        lossless = LossHistogram(np.ones((1, 4), np.int64), np.zeros((1, 4)))
        assert math.isnan(lossless.share(0, 0.1))


def sorted_share(values: list[float], hardest: float) -> float:
    """The slow form: sort, take the hardest, divide; what is cut through counts in part."""
    count, taken = hardest * len(values), 0.0
    for k, value in enumerate(sorted(values, reverse=True)):
        taken += value * min(1.0, max(0.0, count - k))
    return taken / sum(values)


def test_equals_the_slow_form(detector: Detector, data: singleshot.Dataset) -> None:
    gammas = (0.0, 2.0)
    found = loss_distribution(detector, data, gammas=gammas, batch_size=3)
    expected: dict[tuple[bool, float], list[float]] = {(p, g): [] for p in (True, False) for g in gammas}

    def visit(seen: Visit) -> None:
        matched = match(detector, seen)
        logits = seen.raw.predictions["class_logits"]
        for i, a in matched.counted.nonzero().tolist():
            positive = bool(matched.positive[i, a])
            entropy = reference.cross_entropy(logits[i, a].tolist(), int(matched.labels[i, a]) if positive else 2)
            for gamma in gammas:
                expected[positive, gamma].append((1 - math.exp(-entropy)) ** gamma * entropy)

    visit_images(detector, data, visit)
    assert found.link == "softmax"
    assert found.images == 4
    for positive, histogram in ((True, found.positives), (False, found.negatives)):
        for row, gamma in enumerate(gammas):
            values = expected[positive, gamma]
            assert len(histogram) == len(values) > 0
            assert histogram.sums[row].sum() == pytest.approx(sum(values), rel=1e-4)
            for part in (0.01, 0.1, 0.2, 0.5, 1.0):
                assert histogram.share(row, part) == pytest.approx(sorted_share(values, part), abs=2e-3)


def test_focus_grows_with_gamma(detector: Detector, data: singleshot.Dataset) -> None:
    found = loss_distribution(detector, data)
    shares = [found.negatives.share(row, 0.1) for row in range(4)]
    assert shares == sorted(shares)
    for row in range(4):
        fraction, cumulative = found.negatives.curve(row)
        assert (np.diff(np.diff(cumulative) / np.diff(fraction)) > -1e-9).all()  # convex: from easy to hard
        assert fraction[-1] == pytest.approx(1)
        assert cumulative[-1] == pytest.approx(1)


def test_batches_make_no_difference(detector: Detector, data: singleshot.Dataset) -> None:
    one, three = (loss_distribution(detector, data, batch_size=size) for size in (1, 3))
    assert len(one.negatives) == len(three.negatives)
    assert one.negatives.share(3, 0.1) == pytest.approx(three.negatives.share(3, 0.1), rel=1e-3)


def test_modes_and_document(detector: Detector, data: singleshot.Dataset) -> None:
    detector.train()
    document = loss_distribution(detector, data, gammas=[1]).to_json()
    assert detector.training
    assert list(document["positives"]["share_of_hardest"]) == ["1"]
    assert list(document["positives"]["share_of_hardest"]["1"]) == [f"{part:g}" for part in HARDEST]


@pytest.mark.parametrize("gammas", [[], [-1.0], [math.nan], [1.0, 1.0]])
def test_wrong_gammas(detector: Detector, data: singleshot.Dataset, gammas: list[float]) -> None:
    with pytest.raises(UserError, match="gammas: expected different numbers, 0 or more"):
        loss_distribution(detector, data, gammas=gammas)


def test_infinite_outputs_are_refused(detector: Detector, data: singleshot.Dataset) -> None:
    with torch.no_grad():
        for parameter in detector.head.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(UserError, match="class outputs are not finite"):
        loss_distribution(detector, data)
