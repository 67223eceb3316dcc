"""From raw predictions to findings: threshold, candidates, suppression, the best of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import reference
import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses.classification import ClassificationLoss, SoftmaxLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy
from singleshot.outputs.centreness import Centreness
from singleshot.outputs.iou import IoUHead
from singleshot.postprocess import (
    ClassScores,
    PerClassPostprocess,
    PerLevelPostprocess,
    Postprocess,
    Scores,
    lists,
    per_class,
    per_level,
    unsuppressed,
    vary,
)
from singleshot.structures import Anchors, Detections, Matched

CODER = DeltaCoder()


def given_scores(predictions: dict[str, Tensor]) -> Tensor:
    return predictions["scores"]


def random_case(seed: int, batch: int = 2, anchors: int = 120, classes: int = 3) -> tuple[dict[str, Tensor], Anchors]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(anchors, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 10 + torch.rand(anchors, 2, generator=generator) * 30], 1)
    scores = torch.rand(batch, anchors, classes, generator=generator) ** 3
    deltas = torch.randn(batch, anchors, 4, generator=generator)
    return {"scores": scores, "box_deltas": deltas}, Anchors(boxes, (anchors,))


def slow(
    scores: Tensor, boxes: Tensor, *, threshold: float, candidates: int, iou: float, detections: int
) -> list[tuple[float, int, list[float]]]:
    """One image: SSD section 3.7, a class at a time."""
    found = []
    for label in range(scores.shape[1]):
        column = scores[:, label].tolist()
        order = sorted((a for a in range(len(column)) if column[a] > threshold), key=lambda a: -column[a])[:candidates]
        kept = reference.greedy_nms([boxes[a].tolist() for a in order], [column[a] for a in order], iou)
        found += [(column[order[k]], label, boxes[order[k]].tolist()) for k in kept]
    return sorted(found, key=lambda one: -one[0])[:detections]


def test_clipping_before_nms_lets_a_box_outside_suppress_one_inside() -> None:
    """By hand: 40 x 10 pixels, of which 20 lie outside, and the 20 x 10 inside: IoU 0.5 free, 1 when clipped."""
    anchors = Anchors(torch.tensor([[-20.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.0, 10.0]]), (2,))
    predictions = {"scores": torch.tensor([[[0.9], [0.8]]]), "box_deltas": torch.zeros(1, 2, 4)}
    limits = torch.tensor([[50.0, 50.0]])
    after = PerClassPostprocess(CODER, given_scores, iou=0.6)
    before = replace(after, clip_first=True)
    torch.testing.assert_close(after(predictions, anchors, None, limits).scores, torch.tensor([[0.9, 0.8]]))
    (found,) = before(predictions, anchors, None, limits).to_list()
    torch.testing.assert_close(found["scores"], torch.tensor([0.9]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[0.0, 0.0, 20.0, 10.0]]))


@pytest.mark.parametrize("seed", range(3))
def test_equal_scores_keep_their_order(seed: int) -> None:
    """bfloat16 leaves few different scores; which of them are candidates must not depend on the batch."""
    predictions, anchors = random_case(seed, batch=3, anchors=700)
    predictions["scores"] = (predictions["scores"] * 8).round() / 8
    made = PerClassPostprocess(CODER, given_scores, threshold=0.2, candidates=30, detections=25)
    together = made(predictions, anchors)
    boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
    for image in range(3):
        alone = made({name: values[image : image + 1] for name, values in predictions.items()}, anchors)
        expected = slow(
            predictions["scores"][image], boxes[image], threshold=0.2, candidates=30, iou=0.45, detections=25
        )
        for found, k in ((together, image), (alone, 0)):
            assert found.scores[k].tolist() == [score for score, _, _ in expected]
            assert found.labels[k].tolist() == [label for _, label, _ in expected]
            assert found.boxes[k].tolist() == [box for _, _, box in expected]


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("candidates", "detections"), [(400, 200), (15, 200), (400, 12)])
def test_equals_the_slow_form(
    seed: int, candidates: int, detections: int, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only a few of the candidates are looked at first."""
    if few:
        monkeypatch.setattr(per_class, "_MANY", 40)
        monkeypatch.setattr(lists, "_FIRST", 10)
    predictions, anchors = random_case(seed)
    settings = {"threshold": 0.1, "candidates": candidates, "iou": 0.45, "detections": detections}
    found = PerClassPostprocess(CODER, given_scores, **settings)(predictions, anchors).to_list()  # type: ignore[arg-type]
    boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
    for i, image in enumerate(found):
        expected = slow(predictions["scores"][i], boxes[i], **settings)  # type: ignore[arg-type]
        assert len(expected) > 5
        assert image["scores"].tolist() == [score for score, _, _ in expected]
        assert image["labels"].tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(image["boxes"], torch.tensor([box for _, _, box in expected]))


class TestCandidatesOfImage:
    """RefineDet section 4: "top 400 high confident detections per image" before the suppression."""

    @pytest.mark.parametrize("ties", [False, True])
    @pytest.mark.parametrize(("candidates", "of_image"), [(None, 25), (400, 25), (9, 20), (400, 1), (None, 10_000)])
    def test_equals_the_slow_form(self, candidates: int | None, of_image: int, ties: bool) -> None:
        predictions, anchors = random_case(7, batch=3)
        if ties:
            predictions["scores"] = (predictions["scores"] * 8).round() / 8
        boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
        step = PerClassPostprocess(CODER, given_scores, candidates=candidates, candidates_of_image=of_image)
        together = step(predictions, anchors).to_list()
        for i in range(3):
            scores = predictions["scores"][i]
            pairs = []  # classes in order, each best first
            for label in range(scores.shape[1]):
                column = [(score, label, a) for a, score in enumerate(scores[:, label].tolist()) if score > 0.01]
                pairs += sorted(column, key=lambda pair: -pair[0])[:candidates]
            left = torch.zeros_like(scores)
            for score, label, a in sorted(pairs, key=lambda pair: -pair[0])[:of_image]:
                left[a, label] = score
            expected = slow(left, boxes[i], threshold=0.01, candidates=10_000, iou=0.45, detections=200)
            alone = step({name: value[i : i + 1] for name, value in predictions.items()}, anchors).to_list()[0]
            for found in (together[i], alone):
                assert found["scores"].tolist() == [score for score, _, _ in expected]
                assert found["labels"].tolist() == [label for _, label, _ in expected]
                assert found["boxes"].tolist() == [box for _, _, box in expected]

    def test_by_hand(self) -> None:
        """Four boxes apart from each other, two classes: the best three pairs of the image, whatever their class."""
        boxes = [[20.0 * k, 0.0, 20.0 * k + 9, 9.0] for k in range(4)]
        scores = [[0.9, 0.1], [0.8, 0.3], [0.2, 0.5], [0.4, 0.5]]
        step = PerClassPostprocess(CODER, given_scores, candidates_of_image=3)
        (found,) = step(*one_row(boxes, scores)).to_list()
        assert found["scores"].tolist() == pytest.approx([0.9, 0.8, 0.5])
        assert found["labels"].tolist() == [0, 0, 1]
        assert found["boxes"].tolist() == [boxes[0], boxes[1], boxes[2]]  # of the two with 0.5 the first anchor

    def test_it_counts_before_the_suppression(self) -> None:
        """Two candidates on one another use up both places; without the limit the third box is found."""
        boxes = [[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0], [40.0, 0.0, 49.0, 9.0]]
        case = one_row(boxes, [[0.9], [0.8], [0.7]])
        step = PerClassPostprocess(CODER, given_scores)
        assert step(*case).to_list()[0]["scores"].tolist() == pytest.approx([0.9, 0.7])
        limited = replace(step, candidates_of_image=2)(*case).to_list()[0]
        assert limited["scores"].tolist() == pytest.approx([0.9])

    @pytest.mark.parametrize("soft", [None, 0.3])
    @pytest.mark.parametrize("candidates", [None, 20])
    def test_export_agrees_bit_for_bit(self, candidates: int | None, soft: float | None) -> None:
        step = PerClassPostprocess(
            CODER, given_scores, threshold=0.05, candidates=candidates, soft=soft, candidates_of_image=30
        )
        for ours, theirs in exported_and_eager(step):
            assert len(theirs["scores"]) > 3
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_who_is_left_out_has_no_voice(self) -> None:
        """The box of score 0.4 would pull the first one; it is the fourth candidate of the image."""
        boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0], [40.0, 0.0, 50.0, 10.0]]
        case = one_row(boxes, [[0.8, 0.0], [0.4, 0.0], [0.5, 0.6]])
        step = PerClassPostprocess(CODER, given_scores, vote=0.16)
        assert step(*case).to_list()[0]["boxes"][0].tolist() != boxes[0]
        found = replace(step, candidates_of_image=3)(*case).to_list()[0]
        torch.testing.assert_close(found["boxes"][0], torch.tensor(boxes[0]))


def test_the_papers_numbers() -> None:
    settings = PerClassPostprocess(CODER, given_scores)
    assert (settings.threshold, settings.candidates, settings.iou, settings.detections) == (0.01, 400, 0.45, 200)
    assert settings.candidates_of_image is None


def one_row(boxes: list[list[float]], scores: list[list[float]]) -> tuple[dict[str, Tensor], Anchors]:
    anchors = torch.tensor(boxes)
    return {"scores": torch.tensor([scores]), "box_deltas": torch.zeros(1, len(boxes), 4)}, Anchors(
        anchors, (len(boxes),)
    )


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    boxes = [[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 29.0, 29.0]]
    (found,) = PerClassPostprocess(CODER, given_scores, threshold=0.25)(*one_row(boxes, [[0.25], [0.2501]])).to_list()
    assert found["boxes"].tolist() == [[20, 20, 29, 29]]


def test_classes_do_not_suppress_each_other() -> None:
    boxes = [[0.0, 0.0, 9.0, 9.0]] * 2
    (found,) = PerClassPostprocess(CODER, given_scores)(*one_row(boxes, [[0.9, 0.3], [0.8, 0.7]])).to_list()
    assert found["labels"].tolist() == [0, 1]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7])


def test_an_anchor_may_be_several_classes() -> None:
    (found,) = PerClassPostprocess(CODER, given_scores)(*one_row([[0.0, 0.0, 9.0, 9.0]], [[0.4, 0.5, 0.0]])).to_list()
    assert found["labels"].tolist() == [1, 0]


def test_nothing_above_the_threshold() -> None:
    predictions, anchors = random_case(0)
    found = PerClassPostprocess(CODER, given_scores, threshold=2.0)(predictions, anchors)
    for image in found.to_list():
        assert image["boxes"].shape == (0, 4)
        assert image["labels"].dtype == torch.int64


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_broken_numbers_are_no_findings(number: float) -> None:
    predictions, anchors = random_case(1)
    expected = PerClassPostprocess(CODER, given_scores)(predictions, anchors).to_list()[1]
    predictions["box_deltas"][0, :, 0] = number
    found = PerClassPostprocess(CODER, given_scores)(predictions, anchors).to_list()
    assert len(found[0]["boxes"]) == 0
    assert torch.equal(found[1]["scores"], expected["scores"])


def test_nan_scores_are_no_findings() -> None:
    predictions, anchors = random_case(1)
    predictions["scores"][0, 3:] = torch.nan
    found = PerClassPostprocess(CODER, given_scores)(predictions, anchors).to_list()
    assert found[0]["scores"].isfinite().all()
    assert len(found[0]["scores"]) > 0


def test_keep_leaves_anchors_out() -> None:
    predictions, anchors = random_case(2)
    keep = torch.zeros(2, 120, dtype=torch.bool)
    keep[0, :50] = True
    found = PerClassPostprocess(CODER, given_scores)(predictions, anchors, keep).to_list()
    first = {name: value[:1, :50] for name, value in predictions.items()}
    expected = PerClassPostprocess(CODER, given_scores)(first, Anchors(anchors.boxes[:50], (50,))).to_list()
    assert torch.equal(found[0]["boxes"], expected[0]["boxes"])
    assert len(found[1]["boxes"]) == 0


def test_fewer_anchors_than_candidates_and_detections() -> None:
    (found,) = PerClassPostprocess(CODER, given_scores)(*one_row([[0.0, 0.0, 9.0, 9.0]], [[0.9]])).to_list()
    assert found["boxes"].tolist() == [[0, 0, 9, 9]]


def test_anchors_of_each_image_its_own() -> None:
    predictions, anchors = random_case(3)
    both = Anchors(torch.stack([anchors.boxes, anchors.boxes + 5]), (120,))
    found = PerClassPostprocess(CODER, given_scores)(predictions, both).to_list()
    alone = PerClassPostprocess(CODER, given_scores)(predictions, Anchors(anchors.boxes + 5, (120,))).to_list()
    assert torch.equal(found[1]["boxes"], alone[1]["boxes"])


def test_the_size_of_the_suppression_does_not_change_the_result() -> None:
    """While a graph is traced the full number of candidates is taken; else only what the fullest class needs."""
    predictions, anchors = random_case(4)
    step = PerClassPostprocess(CODER, given_scores, threshold=0.7)
    program = torch.export.export(Wrapped(step, anchors), (predictions["scores"], predictions["box_deltas"])).module()
    boxes, scores, labels = program(predictions["scores"], predictions["box_deltas"])
    expected = step(predictions, anchors)
    found, others = scores > 0, expected.scores > 0
    assert found.sum(1).tolist() == others.sum(1).tolist()
    assert others.sum() > 6
    for ours, theirs in ((scores, expected.scores), (boxes, expected.boxes), (labels, expected.labels)):
        assert torch.equal(ours[found], theirs[others])


def soft_case() -> tuple[dict[str, Tensor], Anchors, PerClassPostprocess]:
    predictions, anchors = random_case(5)
    return predictions, anchors, PerClassPostprocess(CODER, given_scores, threshold=0.05, candidates=None, soft=0.3)


def slow_soft(scores: Tensor, boxes: Tensor, iou: float, threshold: float) -> list[tuple[float, int, list[float]]]:
    """One image: RefineDet's COCO test, a class at a time."""
    found = []
    for label in range(scores.shape[1]):
        left = {a: score for a, score in enumerate(scores[:, label].tolist()) if score > threshold}
        while left:
            best = max(left, key=lambda a: left[a])
            found.append((left.pop(best), label, boxes[best].tolist()))
            for a in list(left):
                overlap = reference.iou(found[-1][2], boxes[a].tolist())
                left[a] *= 1 - overlap if overlap > iou else 1
                if left[a] < threshold:
                    del left[a]
    return sorted(found, key=lambda one: -one[0])


class TestSoft:
    @pytest.mark.parametrize("detections", [10, 1000])
    def test_equals_the_slow_form(self, detections: int) -> None:
        predictions, anchors, step = soft_case()
        boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
        for i, image in enumerate(replace(step, detections=detections)(predictions, anchors).to_list()):
            expected = slow_soft(predictions["scores"][i], boxes[i], 0.3, 0.05)[:detections]
            assert len(expected) > 9
            assert image["labels"].tolist() == [label for _, label, _ in expected]
            assert image["scores"].tolist() == pytest.approx([score for score, _, _ in expected])
            torch.testing.assert_close(image["boxes"], torch.tensor([box for _, _, box in expected]))

    def test_by_hand(self) -> None:
        boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [40.0, 0.0, 50.0, 10.0]]
        step = PerClassPostprocess(CODER, given_scores, threshold=0.016, candidates=None, soft=0.3)
        (found,) = step(*one_row(boxes, [[0.8, 0.5], [0.6, 0.02], [0.4, 0.0]])).to_list()
        # Class 0: half of the second's score is left. Class 1: 0.01 would be left, which is below the threshold.
        assert found["scores"].tolist() == pytest.approx([0.8, 0.5, 0.4, 0.3])
        assert found["labels"].tolist() == [0, 1, 0, 0]
        assert found["boxes"].tolist() == [boxes[0], boxes[0], boxes[2], boxes[1]]

    def test_nothing_above_the_threshold_and_no_images(self) -> None:
        predictions, anchors, step = soft_case()
        for image in replace(step, threshold=2.0)(predictions, anchors).to_list():
            assert image["boxes"].shape == (0, 4)
        nothing = {name: value[:0] for name, value in predictions.items()}
        assert step(nothing, anchors).to_list() == []

    @pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
    def test_broken_numbers_are_no_findings(self, number: float) -> None:
        predictions, anchors, step = soft_case()
        expected = step(predictions, anchors).to_list()[1]
        predictions["box_deltas"][0, :, 0] = number
        found = step(predictions, anchors).to_list()
        assert len(found[0]["boxes"]) == 0
        assert torch.equal(found[1]["scores"], expected["scores"])

    def test_export_agrees(self) -> None:
        _, _, step = soft_case()
        for ours, theirs in exported_and_eager(step):
            assert len(theirs["scores"]) > 3
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_no_limit_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, anchors = random_case(6)
    step = PerClassPostprocess(CODER, given_scores, candidates=None, detections=1000)
    inputs = (predictions["scores"], predictions["box_deltas"])
    expected = replace(step, candidates=10_000)(predictions, anchors)
    limited = replace(step, candidates=7)(predictions, anchors).to_list()
    assert torch.equal(step(predictions, anchors).scores, expected.scores)
    assert len(limited[0]["scores"]) < (expected.scores > 0).sum(1)[0]
    # A graph has a fixed size, so it must have a limit.
    monkeypatch.setattr(per_class, "_TRACED_CANDIDATES", 7)
    boxes, scores, labels = torch.export.export(Wrapped(step, anchors), inputs).module()(*inputs)
    for ours, theirs in zip(Detections(boxes, scores, labels).to_list(), limited, strict=True):
        assert torch.equal(ours["scores"], theirs["scores"])


def slow_vote(
    image: dict[str, Tensor], voters: dict[int, list[tuple[float, list[float]]]], spread: float
) -> list[list[float]]:
    """He et al., section 3.3, a box and a corner at a time: `voters` of each class, score and box."""
    told = []
    for box, score, label in zip(*(image[name].tolist() for name in ("boxes", "scores", "labels")), strict=True):
        own = [] if any(box == other for _, other in voters[label]) else [(score, box)]
        heard = [(reference.iou(box, other), voice, other) for voice, other in voters[label] + own]
        weights = [voice * math.exp(-((1 - iou) ** 2) / spread) if iou > 0 else 0.0 for iou, voice, _ in heard]
        corners = zip(*(other for _, _, other in heard), strict=True)
        told.append([
            sum(weight * side for weight, side in zip(weights, sides, strict=True)) / sum(weights) for sides in corners
        ])  # fmt: skip
    return told


def best_voters(
    scores: Tensor, boxes: Tensor, threshold: float, most: int
) -> dict[int, list[tuple[float, list[float]]]]:
    """Of one image: scores [A, K], boxes [A, 4] -> of each class the best candidates above the threshold."""
    found = {}
    for label in range(scores.shape[1]):
        pairs = [(score, box) for score, box in zip(scores[:, label].tolist(), boxes.tolist(), strict=True)]
        found[label] = sorted((pair for pair in pairs if pair[0] > threshold), key=lambda pair: -pair[0])[:most]
    return found


class TestVote:
    @pytest.mark.parametrize("spread", [0.2, 0.6])
    @pytest.mark.parametrize("soft", [None, 0.3])
    @pytest.mark.parametrize("candidates", [None, 15])
    def test_equals_the_slow_form(self, spread: float, soft: float | None, candidates: int | None) -> None:
        predictions, anchors = random_case(5)
        plain = PerClassPostprocess(CODER, given_scores, threshold=0.05, candidates=candidates, soft=soft)
        boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
        found = replace(plain, vote=spread)(predictions, anchors).to_list()
        for i, (image, before) in enumerate(zip(found, plain(predictions, anchors).to_list(), strict=True)):
            voters = best_voters(predictions["scores"][i], boxes[i], 0.05, candidates or 120)
            expected = torch.tensor(slow_vote(before, voters, spread))
            assert (expected - before["boxes"]).abs().amax() > 0.5
            torch.testing.assert_close(image["boxes"], expected, rtol=1e-5, atol=1e-3)
            assert torch.equal(image["scores"], before["scores"])
            assert torch.equal(image["labels"], before["labels"])

    @pytest.mark.parametrize("limited", [False, True])
    def test_of_a_pyramid(self, limited: bool) -> None:
        """Cut at the image's border first, as before the suppression."""
        predictions, anchors = pyramid(3, steps=None)
        plain = PerLevelPostprocess(CODER, given_scores)
        limits = torch.tensor([[50.0, 45.0]] * 3) if limited else None
        boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
        if limited:
            boxes = torch.stack([boxes[..., 0::2].clamp(0, 45), boxes[..., 1::2].clamp(0, 50)], -1).flatten(-2)
        found = replace(plain, vote=0.05)(predictions, anchors, limits=limits).to_list()
        for i, (image, before) in enumerate(
            zip(found, plain(predictions, anchors, limits=limits).to_list(), strict=True)
        ):
            voters = best_voters(predictions["scores"][i], boxes[i], plain.threshold, 1000)
            assert len(image["boxes"]) > 9
            torch.testing.assert_close(
                image["boxes"], torch.tensor(slow_vote(before, voters, 0.05)), rtol=1e-5, atol=1e-3
            )
            assert torch.equal(image["scores"], before["scores"])

    @pytest.mark.parametrize("kind", [PerClassPostprocess, PerLevelPostprocess])
    def test_by_hand(self, kind: type[PerClassPostprocess] | type[PerLevelPostprocess]) -> None:
        """The second box has an IoU of 0.6 with the first; the third stands alone; the last is of another class."""
        boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 6.0], [40.0, 0.0, 50.0, 10.0], [0.0, 0.0, 10.0, 2.0]]
        step = kind(CODER, given_scores, threshold=0.05, iou=0.5, vote=0.16)
        (found,) = step(*one_row(boxes, [[0.8, 0.0], [0.4, 0.0], [0.3, 0.0], [0.0, 0.2]])).to_list()
        share = 0.4 * math.exp(-1) / (0.8 + 0.4 * math.exp(-1))
        expected = [[0.0, 0.0, 10.0, 10 - 4 * share], boxes[2], boxes[3]]
        torch.testing.assert_close(found["boxes"], torch.tensor(expected))
        assert found["scores"].tolist() == pytest.approx([0.8, 0.3, 0.2])

    @pytest.mark.parametrize("kind", [PerClassPostprocess, PerLevelPostprocess])
    @pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
    def test_broken_boxes_have_no_voice(
        self, kind: type[PerClassPostprocess] | type[PerLevelPostprocess], number: float
    ) -> None:
        predictions, anchors = random_case(5)
        step = kind(CODER, given_scores, vote=0.05)
        sound = {name: value.clone() for name, value in predictions.items()}
        sound["scores"][:, ::2] = 0
        predictions["box_deltas"][:, ::2] = number
        for one, other in zip(step(predictions, anchors).to_list(), step(sound, anchors).to_list(), strict=True):
            assert len(one["boxes"]) > 5
            assert torch.equal(one["boxes"], other["boxes"])

    def test_a_box_without_area_stays(self) -> None:
        boxes = [[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 10.0, 10.0]]
        predictions = torch.tensor([[[0.9], [0.8]]])
        deltas = torch.tensor([[[0.0, 0.0, -math.inf, -math.inf], [0.0] * 4]])
        step = PerClassPostprocess(DeltaCoder(), given_scores, vote=0.05)
        (found,) = step(
            {"scores": predictions, "box_deltas": deltas.clamp(min=-200)},
            Anchors(torch.tensor([[0.0, 0.0, 10.0, 10.0], boxes[1]]), (2,)),
        ).to_list()
        torch.testing.assert_close(found["boxes"], torch.tensor(boxes))

    @pytest.mark.parametrize("kind", [PerClassPostprocess, PerLevelPostprocess])
    def test_export_agrees(self, kind: type[PerClassPostprocess] | type[PerLevelPostprocess]) -> None:
        step = kind(CODER, given_scores, threshold=0.05, candidates=50, vote=0.05)
        for ours, theirs in exported_and_eager(step):
            assert len(theirs["scores"]) > 3
            for name in theirs:
                torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("name", ["_VOTERS", "_VOTERS_OF_ALL"])
    def test_only_the_best_and_itself_have_a_voice(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        predictions, anchors = random_case(5, classes=1)
        monkeypatch.setattr(per_class if name == "_VOTERS" else per_level, name, 15)
        kind = PerClassPostprocess if name == "_VOTERS" else PerLevelPostprocess
        plain = kind(CODER, given_scores, threshold=0.05)
        boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
        found = replace(plain, vote=0.6)(predictions, anchors).to_list()
        for i, (image, before) in enumerate(zip(found, plain(predictions, anchors).to_list(), strict=True)):
            voters = best_voters(predictions["scores"][i], boxes[i], 0.05, 15)
            assert len(before["boxes"]) > 20  # of which some are not among the 15
            expected = torch.tensor(slow_vote(before, voters, 0.6))
            torch.testing.assert_close(image["boxes"], expected, rtol=1e-5, atol=1e-3)


def exported_and_eager(step: Postprocess) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What a traced graph and the step itself find in each image of `random_case` 5, which it is traced with, and 6."""
    predictions, anchors = random_case(5)
    program = torch.export.export(Wrapped(step, anchors), tuple(predictions.values())).module()
    for seed in (5, 6):
        predictions, _ = random_case(seed)
        found = Detections(*program(*predictions.values())).to_list()
        yield from zip(found, step(predictions, anchors).to_list(), strict=True)


class Wrapped(torch.nn.Module):
    def __init__(self, step: Postprocess, anchors: Anchors) -> None:
        super().__init__()
        self.step, self.anchors = step, anchors

    def forward(self, scores: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.step({"scores": scores, "box_deltas": deltas}, self.anchors)
        return found.boxes, found.scores, found.labels


def test_class_scores_leave_the_background_out() -> None:
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = ClassScores(SoftmaxLoss())({"class_logits": logits})
    torch.testing.assert_close(scores, logits.softmax(-1)[..., :3])


@dataclass(frozen=True)
class Sigmoid(ClassificationLoss):
    """The link of the sigmoid losses; no loss is asked for here."""

    initial_bias: ClassVar[float] = 0.0

    def num_logits(self, num_classes: int) -> int:
        return num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def __call__(self, predictions: dict[str, Tensor], matched: Matched) -> Tensor:
        raise AssertionError


def iou_aware(classification: ClassificationLoss, alpha: float | None = 0.5) -> ClassScores:
    return ClassScores(classification, (IoUHead(alpha).output(),))


class TestIoUAwareScores:
    LOGITS: ClassVar[dict[str, Tensor]] = {
        "class_logits": torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1)) * 3,
        "iou_logits": torch.randn(2, 7, 1, generator=torch.Generator().manual_seed(2)) * 3,
    }

    def test_by_hand(self) -> None:
        predictions = {
            "class_logits": torch.tensor([[[0.0, math.log(3)]]]),
            "iou_logits": torch.tensor([[[-math.log(4)]]]),
        }
        # p = 1/2 and 3/4, IoU = 1/5
        for alpha, expected in {
            None: [0.1, 0.15],
            0.5: [math.sqrt(0.1), math.sqrt(0.15)],
            0.25: [0.5**0.25 * 0.2**0.75, 0.75**0.25 * 0.2**0.75],
            0: [0.2, 0.2],
        }.items():
            scores = iou_aware(Sigmoid(), alpha)(predictions)
            assert scores.shape == (1, 1, 2)
            assert scores.flatten().tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("classification", [Sigmoid(), SoftmaxLoss()])
    def test_alpha_1_is_the_class_alone_bit_for_bit(self, classification: ClassificationLoss) -> None:
        expected = ClassScores(classification)(self.LOGITS)
        assert torch.equal(iou_aware(classification, 1.0)(self.LOGITS), expected)
        assert torch.equal(iou_aware(classification, 1)(self.LOGITS), expected)

    def test_alpha_0_is_the_iou_alone(self) -> None:
        scores = iou_aware(SoftmaxLoss(), 0.0)(self.LOGITS)
        assert torch.equal(scores, self.LOGITS["iou_logits"].sigmoid().expand(2, 7, 3))

    def test_the_papers_choice(self) -> None:
        assert IoUHead().alpha == 0.5

    @pytest.mark.parametrize("alpha", [None, 0, 1e-3, 0.5, 0.999, 1])
    def test_extreme_logits(self, alpha: float | None) -> None:
        ends = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4])
        predictions = {"class_logits": ends.expand(1, 5, 5), "iou_logits": ends[None, :, None]}
        scores = iou_aware(Sigmoid(), alpha)(predictions)
        assert scores.isfinite().all()
        assert scores.min() == 0
        assert scores.max() == 1
        for axis, moves in ((1, alpha != 1), (2, alpha != 0)):
            assert (scores.diff(dim=axis) >= 0).all()
            assert bool((scores.diff(dim=axis) > 0).any()) == moves

    @pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan, math.inf])
    def test_alpha_outside(self, alpha: float) -> None:
        with pytest.raises(UserError, match=r"iou_alpha must be a number from 0 .* to 1 .*, or None .*, got"):
            iou_aware(Sigmoid()).with_alpha("iou_alpha", alpha)


class TestSeveralFactors:
    """p to the product of the alphas, each output to 1 less its own, or to 1 where it has none."""

    LOGITS: ClassVar[dict[str, Tensor]] = {
        **TestIoUAwareScores.LOGITS,
        "centreness_logits": torch.randn(2, 7, 1, generator=torch.Generator().manual_seed(3)) * 3,
    }

    @pytest.mark.parametrize("first", [None, 0, 0.25, 1])
    @pytest.mark.parametrize("second", [None, 0, 0.5, 1])
    def test_by_hand(self, first: float | None, second: float | None) -> None:
        p, iou, middle = (self.LOGITS[key].sigmoid() for key in ("class_logits", "iou_logits", "centreness_logits"))
        own = (1 if first is None else first) * (1 if second is None else second)
        powers = [1 if alpha is None else 1 - alpha for alpha in (first, second)]
        expected = p**own * iou ** powers[0] * middle ** powers[1]
        outputs = (IoUHead(first).output(), Centreness(second).output())
        scores = ClassScores(Sigmoid(), outputs)(self.LOGITS)
        assert scores.shape == p.shape
        torch.testing.assert_close(scores, expected)
        torch.testing.assert_close(ClassScores(Sigmoid(), outputs[::-1])(self.LOGITS), expected)

    def test_an_output_without_a_factor_has_no_part(self) -> None:
        silent = replace(IoUHead().output(), factor=None)
        scores = ClassScores(Sigmoid(), (silent,))
        assert scores.alphas == {}
        assert torch.equal(scores(self.LOGITS), self.LOGITS["class_logits"].sigmoid())

    def test_one_number_of_several(self) -> None:
        scores = ClassScores(Sigmoid(), (IoUHead().output(), Centreness().output()))
        assert scores.alphas == {"iou_alpha": 0.5, "centreness_alpha": None}
        step = vary(PerLevelPostprocess(CODER, scores), "centreness_alpha", 0.3)
        assert step.scores == ClassScores(Sigmoid(), (IoUHead().output(), Centreness(0.3).output()))

    @pytest.mark.parametrize("kind", [PerClassPostprocess, PerLevelPostprocess])
    def test_export_agrees(self, kind: type[PerClassPostprocess] | type[PerLevelPostprocess]) -> None:
        predictions, anchors = pyramid(1)
        generator = torch.Generator().manual_seed(2)
        predictions["class_logits"] = predictions.pop("scores").logit(1e-3)
        for key in ("iou_logits", "centreness_logits"):
            predictions[key] = torch.randn(*predictions["box_deltas"].shape[:2], 1, generator=generator)
        step = kind(CODER, ClassScores(Sigmoid(), (IoUHead(0.4).output(), Centreness().output())))

        class Wrapped(torch.nn.Module):
            def forward(self, said: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
                found = step(said, anchors)
                return found.boxes, found.scores, found.labels

        program = torch.export.export(Wrapped(), (predictions,)).module()
        expected = step(predictions, anchors).to_list()
        for ours, theirs in zip(Detections(*program(predictions)).to_list(), expected, strict=True):
            assert len(theirs["scores"]) > 3
            # PyTorch rounds a power otherwise in the last few places of a tensor, and these are not the same ones.
            torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=3e-7, atol=0)
            assert all(torch.equal(ours[name], theirs[name]) for name in ("boxes", "labels"))


def pyramid(
    seed: int, *, batch: int = 3, counts: tuple[int, ...] = (90, 40, 10, 0, 3), classes: int = 4, steps: int | None = 20
) -> tuple[dict[str, Tensor], Anchors]:
    """Boxes that overlap much; with `steps`, scores of few different values, so that most are equal to others."""
    generator = torch.Generator().manual_seed(seed)
    number = sum(counts)
    low = torch.rand(number, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 10 + torch.rand(number, 2, generator=generator) * 40], 1)
    scores = torch.rand(batch, number, classes, generator=generator) ** 2
    if steps:
        scores = (scores * steps).round() / steps
    deltas = torch.randn(batch, number, 4, generator=generator) * 0.3
    return {"scores": scores, "box_deltas": deltas}, Anchors(boxes, counts)


def slow_per_level(
    scores: Tensor,
    boxes: Tensor,
    counts: tuple[int, ...],
    *,
    threshold: float,
    candidates: int,
    iou: float,
    detections: int,
) -> list[tuple[float, int, list[float]]]:
    """One image: focal loss paper section 4.1, with lists."""
    threshold = reference.as_float32(threshold)
    pairs: list[tuple[float, int, int]] = []
    first = 0
    for count in counts:
        level = []
        for a in range(first, first + count):
            for label, score in enumerate(scores[a].tolist()):
                if score > threshold:
                    level.append((score, a, label))
        pairs += sorted(level, key=lambda pair: -pair[0])[:candidates]  # sorted leaves equal scores in their order
        first += count
    pairs.sort(key=lambda pair: -pair[0])
    kept = []
    for label in range(scores.shape[1]):
        own = [place for place, pair in enumerate(pairs) if pair[2] == label]
        survivors = reference.greedy_nms([boxes[pairs[p][1]].tolist() for p in own], [pairs[p][0] for p in own], iou)
        kept += [own[k] for k in survivors]
    return [(pairs[p][0], pairs[p][2], boxes[pairs[p][1]].tolist()) for p in sorted(kept)[:detections]]


def assert_equals_slow(
    step: PerLevelPostprocess, predictions: dict[str, Tensor], anchors: Anchors, found: list[dict[str, Tensor]]
) -> None:
    boxes = CODER.decode(predictions["box_deltas"], anchors.boxes)
    for i, image in enumerate(found):
        expected = slow_per_level(
            predictions["scores"][i],
            boxes[i],
            anchors.counts,
            threshold=step.threshold,
            candidates=step.candidates,
            iou=step.iou,
            detections=step.detections,
        )
        assert image["scores"].tolist() == [score for score, _, _ in expected]
        assert image["labels"].tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(
            image["boxes"], torch.tensor([box for _, _, box in expected]).reshape(-1, 4), rtol=1e-5, atol=1e-4
        )


class TestPerLevel:
    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("steps", [None, 20, 3])
    @pytest.mark.parametrize(("candidates", "detections"), [(1000, 100), (17, 100), (1000, 9), (60, 1000)])
    def test_equals_the_slow_form(self, seed: int, steps: int | None, candidates: int, detections: int) -> None:
        predictions, anchors = pyramid(seed, steps=steps)
        step = PerLevelPostprocess(CODER, given_scores, 0.05, candidates, 0.5, detections)
        found = step(predictions, anchors).to_list()
        assert all(len(image["scores"]) > 5 for image in found)
        assert_equals_slow(step, predictions, anchors, found)

    @pytest.mark.parametrize("block", [1, 100])
    def test_blocks_of_scores(self, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
        predictions, anchors = pyramid(0)
        step = PerLevelPostprocess(CODER, given_scores)
        expected = step(predictions, anchors)
        monkeypatch.setattr(per_level, "_CPU_BLOCK", block)
        assert torch.equal(step(predictions, anchors).scores, expected.scores)

    @pytest.mark.parametrize("enough", [100, 1000])
    def test_many_chunks(self, enough: int) -> None:
        """More candidates than the suppression takes at a time, few of which survive."""
        predictions, anchors = pyramid(5, batch=2, counts=(700, 200), classes=2, steps=50)
        step = PerLevelPostprocess(CODER, given_scores, iou=0.3, detections=enough)
        assert_equals_slow(step, predictions, anchors, step(predictions, anchors).to_list())

    def test_the_papers_numbers(self) -> None:
        step = PerLevelPostprocess(CODER, given_scores)
        assert (step.threshold, step.candidates, step.iou, step.detections) == (0.05, 1000, 0.5, 100)

    def test_by_hand(self) -> None:
        boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 4.0], [0.0, 0.0, 10.0, 8.0]]
        predictions, _ = one_row(boxes, [[0.5, 0.04], [0.6, 0.7], [0.3, 0.0], [0.05, 0.9]])
        (found,) = PerLevelPostprocess(CODER, given_scores)(predictions, Anchors(torch.tensor(boxes), (3, 1))).to_list()
        # Class 1: the box of the other level suppresses 0.7. Class 0: 0.6 suppresses 0.5; 0.3 overlaps by 4/9 only.
        assert found["scores"].tolist() == pytest.approx([0.9, 0.6, 0.3])
        assert found["labels"].tolist() == [1, 0, 0]
        assert found["boxes"].tolist() == [boxes[3], boxes[1], boxes[2]]

    def test_each_level_has_candidates_of_its_own(self) -> None:
        boxes = [[20.0 * i, 0.0, 20.0 * i + 9, 9.0] for i in range(4)]
        predictions, _ = one_row(boxes, [[0.9], [0.8], [0.2], [0.1]])
        step = PerLevelPostprocess(CODER, given_scores, candidates=1)
        (found,) = step(predictions, Anchors(torch.tensor(boxes), (2, 2))).to_list()
        assert found["scores"].tolist() == pytest.approx([0.9, 0.2])

    def test_a_score_at_the_threshold_is_not_above_it(self) -> None:
        boxes = [[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 29.0, 29.0]]
        step = PerLevelPostprocess(CODER, given_scores, threshold=0.25)
        (found,) = step(*one_row(boxes, [[0.25], [0.2501]])).to_list()
        assert found["boxes"].tolist() == [[20, 20, 29, 29]]

    def test_nothing_above_the_threshold(self) -> None:
        predictions, anchors = pyramid(0)
        for image in PerLevelPostprocess(CODER, given_scores, threshold=2.0)(predictions, anchors).to_list():
            assert image["boxes"].shape == (0, 4)
            assert image["labels"].dtype == torch.int64

    def test_no_images(self) -> None:
        predictions, anchors = pyramid(0)
        nothing = {name: value[:0] for name, value in predictions.items()}
        assert PerLevelPostprocess(CODER, given_scores)(nothing, anchors).to_list() == []

    @pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("name", ["class_logits", "box_deltas", "iou_logits"])
    @pytest.mark.parametrize("alpha", [None, 0, 0.5, 1])
    def test_broken_numbers_are_no_findings(self, number: float, name: str, alpha: float | None) -> None:
        predictions, anchors = pyramid(1)
        predictions["class_logits"] = predictions.pop("scores")
        predictions["iou_logits"] = predictions["box_deltas"][..., :1].clone()
        step = PerLevelPostprocess(CODER, iou_aware(Sigmoid(), alpha))
        expected = step(predictions, anchors).to_list()[1]
        predictions[name] = predictions[name].clone()
        predictions[name][0, :, 0] = number
        found = step(predictions, anchors).to_list()
        assert len(found[0]["boxes"]) == 0
        assert len(expected["boxes"]) > 0
        assert torch.equal(found[1]["scores"], expected["scores"])

    def test_a_box_that_overflows_is_none(self) -> None:
        predictions, anchors = pyramid(1)
        predictions["box_deltas"][0, :, 0] = torch.finfo(torch.float32).max
        found = PerLevelPostprocess(CODER, given_scores)(predictions, anchors).to_list()
        assert len(found[0]["boxes"]) == 0
        assert found[1]["boxes"].isfinite().all()

    def test_keep_leaves_anchors_out(self) -> None:
        predictions, anchors = pyramid(2)
        keep = torch.zeros(3, 143, dtype=torch.bool)
        keep[0, :50] = True
        found = PerLevelPostprocess(CODER, given_scores)(predictions, anchors, keep).to_list()
        first = {name: value[:1, :50] for name, value in predictions.items()}
        (expected,) = PerLevelPostprocess(CODER, given_scores)(first, Anchors(anchors.boxes[:50], (50,))).to_list()
        for name, value in expected.items():
            assert torch.equal(found[0][name], value)
        assert len(found[1]["boxes"]) == len(found[2]["boxes"]) == 0

    def test_anchors_of_each_image_its_own(self) -> None:
        predictions, anchors = pyramid(3)
        moved = torch.stack([anchors.boxes, anchors.boxes + 5, anchors.boxes])
        found = PerLevelPostprocess(CODER, given_scores)(predictions, Anchors(moved, anchors.counts)).to_list()
        alone = PerLevelPostprocess(CODER, given_scores)(predictions, Anchors(moved[1], anchors.counts)).to_list()
        assert torch.equal(found[1]["boxes"], alone[1]["boxes"])

    def test_an_image_alone_and_in_a_batch(self) -> None:
        predictions, anchors = pyramid(4)
        step = PerLevelPostprocess(CODER, given_scores, candidates=30, detections=20)
        together = step(predictions, anchors).to_list()
        for i, image in enumerate(together):
            one = {name: value[i : i + 1] for name, value in predictions.items()}
            (alone,) = step(one, anchors).to_list()
            assert all(torch.equal(image[name], alone[name]) for name in image)

    @pytest.mark.parametrize("threshold", [0.05, pytest.param(0.9, marks=pytest.mark.slow)])
    def test_traced_it_is_the_same(self, threshold: float) -> None:
        """A graph has the full number of candidates; otherwise only what the fullest image needs."""
        predictions, anchors = pyramid(6, batch=2, counts=(900, 300, 20), classes=3, steps=30)
        step = PerLevelPostprocess(CODER, given_scores, threshold)
        inputs = (predictions["scores"], predictions["box_deltas"])
        expected = step(predictions, anchors).to_list()
        torch._dynamo.reset()
        for program in (
            torch.export.export(Wrapped(step, anchors), inputs).module(),
            torch.compile(Wrapped(step, anchors), fullgraph=True, backend="eager"),
        ):
            boxes, scores, labels = program(*inputs)
            assert boxes.shape == (2, 100, 4)
            for ours, theirs in zip(Detections(boxes, scores, labels).to_list(), expected, strict=True):
                assert len(theirs["scores"]) > 3
                assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("alpha", [None, 0, 0.3, 1])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.05, 0.5, 0.999, 1.0])
def test_anchors_that_cannot_pass_are_left_out_by_their_logits(alpha: float | None, threshold: float) -> None:
    """Of one sigmoid per class the logits say enough; a loss of one's own gets all its scores computed."""
    predictions, anchors = pyramid(8)
    generator = torch.Generator().manual_seed(3)
    predictions["class_logits"] = torch.randn(3, 143, 4, generator=generator) * 5
    predictions["iou_logits"] = torch.randn(3, 143, 1, generator=generator) * 2
    known, unknown = (
        PerLevelPostprocess(CODER, iou_aware(loss, alpha), threshold)(predictions, anchors).to_list()
        for loss in (BalancedCrossEntropy(), Sigmoid())
    )
    for ours, theirs in zip(known, unknown, strict=True):
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=3e-7, atol=0)
        assert torch.equal(ours["boxes"], theirs["boxes"])


class TestVary:
    STEP: ClassVar = PerLevelPostprocess(CODER, iou_aware(Sigmoid()))

    def test_without_suppression(self) -> None:
        """Boxes that lie on each other all stay, whatever the suppression was."""
        predictions, anchors, soft = soft_case()
        found = predictions["scores"] > soft.threshold
        for step in (soft, replace(soft, soft=None)):
            step = replace(step, detections=10**6)
            kept, everything = (one(predictions, anchors).scores > 0 for one in (step, unsuppressed(step)))
            assert everything.sum() == found.sum() > kept.sum()
        assert unsuppressed(replace(self.STEP, vote=0.05)) == replace(self.STEP, iou=2.0)

    def test_one_number_is_changed(self) -> None:
        for name, value, field in [
            ("threshold", 0.3, "threshold"),
            ("nms", 0.6, "iou"),
            ("candidates", 7, "candidates"),
            ("detections", 9.0, "detections"),
        ]:
            assert vary(self.STEP, name, value) == replace(self.STEP, **{field: value})  # type: ignore[arg-type]
        for alpha in (0.2, 1, None):
            assert vary(self.STEP, "iou_alpha", alpha).scores == iou_aware(Sigmoid(), alpha)
        ssd = PerClassPostprocess(CODER, iou_aware(SoftmaxLoss()))
        assert vary(ssd, "soft_nms", 0.3) == replace(ssd, soft=0.3)
        assert vary(replace(ssd, soft=0.3), "soft_nms", None) == ssd
        assert vary(replace(ssd, soft=0.3), "nms", 0.6) == replace(ssd, iou=0.6)  # that is greedy suppression
        assert vary(ssd, "candidates_of_image", 400) == replace(ssd, candidates_of_image=400)
        assert vary(replace(ssd, candidates_of_image=400), "candidates_of_image", None) == ssd
        for step in (self.STEP, ssd):
            assert vary(step, "vote", 0.05) == replace(step, vote=0.05)
            assert vary(replace(step, vote=0.05), "vote", None) == step
        assert vary(ssd, "iou_alpha", 0.1) == replace(ssd, scores=iou_aware(SoftmaxLoss(), 0.1))

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            (
                "coder",
                1.0,
                "'coder' is not a number of the post-processing: expected one of iou_alpha, centreness_alpha",
            ),
            ("coder", 1.0, "expected one of iou_alpha, centreness_alpha, threshold, nms"),
            ("nms", 1.5, "nms must be a number from 0 to 1, got 1.5"),
            ("nms", None, "nms must be a number from 0 to 1, got None"),
            ("candidates", 0.5, "candidates must be a whole number, 1 or more, got 0.5"),
            ("detections", 0, "detections must be a whole number, 1 or more, got 0"),
            ("iou_alpha", 2.0, "iou_alpha must be a number from 0"),
            ("soft_nms", 0.3, "soft_nms needs a detector that takes candidates of each class, such as ssd"),
            ("soft_nms", None, "soft_nms needs a detector that takes candidates of each class, such as ssd"),
            (
                "candidates_of_image",
                400,
                "candidates_of_image needs a detector that takes candidates of each class",
            ),
            (
                "candidates_of_image",
                None,
                "this one takes candidates of each level of its pyramid: vary candidates instead",
            ),
            ("vote", 0, "vote must be a number above 0 and at most 1, or none for no voting, got 0"),
            ("vote", 1.5, "vote must be a number from 0 to 1, got 1.5"),
        ],
    )
    def test_what_cannot_be(self, name: str, value: float | None, said: str) -> None:
        with pytest.raises(UserError, match=said):
            vary(self.STEP, name, value)

    @pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
    def test_soft_nms_outside(self, value: float) -> None:
        with pytest.raises(UserError, match="soft_nms must be a number from 0 to 1, got"):
            vary(PerClassPostprocess(CODER, given_scores), "soft_nms", value)

    @pytest.mark.parametrize("value", [0, 2.5])
    def test_candidates_of_image_outside(self, value: float) -> None:
        with pytest.raises(UserError, match=f"candidates_of_image must be a whole number, 1 or more, got {value}"):
            vary(PerClassPostprocess(CODER, given_scores), "candidates_of_image", value)

    def test_one_of_your_own(self) -> None:
        @dataclass(frozen=True)
        class Mine:
            scores: Scores = given_scores
            coder: DeltaCoder = CODER
            iou: float = 0.5

            __call__ = PerLevelPostprocess.__call__

        assert unsuppressed(Mine()) == Mine(iou=2.0)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="vote sets the field vote, but Mine has no such field"):
            vary(Mine(), "vote", 0.05)  # type: ignore[arg-type]

    def test_no_iou_head(self) -> None:
        with pytest.raises(UserError, match="this detector has no IoU head: train one with it"):
            vary(PerLevelPostprocess(CODER, ClassScores(Sigmoid())), "iou_alpha", 0.5)
