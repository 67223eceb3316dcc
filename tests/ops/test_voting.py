"""Box voting: clusters of boxes become one box, or one box and softened others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch
from torch import Tensor

from singleshot.ops import voting as module
from singleshot.ops.voting import box_vote, soft_box_vote

Found = tuple[Tensor, Tensor, Tensor]
Vote = Callable[[Tensor, Tensor, Tensor], Found]
Row = tuple[float, int, list[float]]  # score, label, box


def crowd(seed: int, count: int = 60, classes: int = 3, *, steps: int | None = None) -> Found:
    """Overlapping boxes on a grid of half pixels; with `steps`, scores of few different values."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 30, (count, 2), generator=generator)
    boxes = torch.cat([low, low + torch.randint(8, 24, (count, 2), generator=generator)], 1) / 2
    scores = torch.rand(count, generator=generator)
    if steps:
        scores = ((scores * steps).floor() + 1) / (steps + 1)
    return boxes, scores, torch.randint(0, classes, (count,), generator=generator)


def slow(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, soft: float | None) -> list[Row]:
    """The authors' test, with lists; `soft`: the threshold of soft box voting. Numbers are rounded as float32."""
    found: list[Row] = []
    for label in range(int(labels.max()) + 1):
        left = [(boxes[i].tolist(), scores[i].item()) for i in range(len(boxes)) if labels[i] == label]
        left.sort(key=lambda row: (-row[1], row[0]))
        while left:
            best, score = left[0]
            overlaps = [reference.iou32(best, box) for box, _ in left]
            member = [k == 0 or overlaps[k] >= reference.as_float32(iou) for k in range(len(left))]
            cluster = [left[k] for k in range(len(left)) if member[k]]
            if len(cluster) == 1:
                found.append((score, label, best))
            else:
                total = sum(weight for _, weight in cluster)
                mean = [sum(box[c] * weight for box, weight in cluster) / total for c in range(4)]
                found.append((score, label, mean))
                for k in range(1, len(left)):
                    lower = reference.as_float32(left[k][1] * reference.as_float32(1 - overlaps[k]))
                    if soft is not None and member[k] and lower >= reference.as_float32(soft) and lower > 0:
                        found.append((lower, label, left[k][0]))
            left = [left[k] for k in range(len(left)) if not member[k]]
    return found


def rows(found: Found) -> list[Row]:
    return list(zip(found[1].tolist(), found[2].tolist(), found[0].tolist(), strict=True))


def assert_same(found: Found, expected: list[Row]) -> None:
    assert found[1].tolist() == sorted(found[1].tolist(), reverse=True)
    for ours, theirs in zip(sorted(rows(found)), sorted(expected), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2] == pytest.approx(theirs[2], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("chunk", [4, 17, 128])
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.45, 0.5, 0.75, 1.0])
def test_equals_the_slow_form(monkeypatch: pytest.MonkeyPatch, chunk: int, iou: float) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    for seed in range(3):
        case = crowd(seed)
        assert_same(box_vote(*case, iou), slow(*case, iou, None))
        assert_same(soft_box_vote(*case, iou, 0.2), slow(*case, iou, 0.2))
        assert_same(soft_box_vote(*case, iou, 0.0), slow(*case, iou, 0.0))


def test_the_defaults_are_the_authors() -> None:
    case = crowd(5)
    assert_same(box_vote(*case), slow(*case, 0.45, None))
    assert_same(soft_box_vote(*case), slow(*case, 0.45, 0.05))


def by_hand() -> Found:
    """IoU with the first: 1/2, 2/5; of the second and the third 4/5. The fourth is of another class; the last alone."""
    boxes = [[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 8], [40, 0, 50, 10]]
    return torch.tensor(boxes), torch.tensor([0.75, 0.25, 0.5, 0.4, 0.03]), torch.tensor([1, 1, 1, 0, 1])


def test_box_vote_by_hand() -> None:
    # The first two: y2 = (0.75 * 10 + 0.25 * 5) / 1 = 8.75. The third overlaps the first too little, and by then the
    # second, which it overlaps enough, is gone.
    boxes, scores, labels = box_vote(*by_hand())
    assert scores.tolist() == pytest.approx([0.75, 0.5, 0.4, 0.03])
    assert labels.tolist() == [1, 1, 0, 1]
    assert boxes.tolist() == [[0, 0, 10, 8.75], [0, 0, 10, 4], [0, 0, 10, 8], [40, 0, 50, 10]]


def test_soft_box_vote_by_hand() -> None:
    # As before, and the second stays with half of its score. The one alone has less than the threshold, and stays.
    boxes, scores, labels = soft_box_vote(*by_hand(), threshold=0.125)
    assert scores.tolist() == pytest.approx([0.75, 0.5, 0.4, 0.125, 0.03])
    assert labels.tolist() == [1, 1, 0, 1, 1]
    assert boxes.tolist() == [[0, 0, 10, 8.75], [0, 0, 10, 4], [0, 0, 10, 8], [0, 0, 10, 5], [40, 0, 50, 10]]
    assert rows(soft_box_vote(*by_hand(), threshold=0.13)) == rows(box_vote(*by_hand()))


def test_overlap_equal_to_the_threshold_is_of_the_cluster() -> None:
    for second, iou in (([0.0, 0.0, 10.0, 5.0], 0.5), ([0.0, 0.0, 9.0, 5.0], 0.45), ([0.0, 0.0, 10.0, 3.0], 0.3)):
        case = torch.tensor([[0.0, 0.0, 10.0, 10.0], second]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        assert len(box_vote(*case, iou)[0]) == 1
        assert len(box_vote(*case, iou + 1e-4)[0]) == 2


@pytest.mark.parametrize("vote", [box_vote, soft_box_vote])
class TestBoth:
    def test_single_boxes_stay_as_they_are(self, vote: Vote) -> None:
        generator = torch.Generator().manual_seed(0)
        low = torch.arange(300)[:, None] * 10 + torch.rand(300, 2, generator=generator)
        boxes = torch.cat([low, low + 7.7], 1)
        scores, order = torch.rand(300, generator=generator).sort(descending=True)
        labels = torch.randint(0, 2, (300,), generator=generator)
        found = vote(boxes[order], scores, labels[order])
        for ours, theirs in zip(found, (boxes[order], scores, labels[order]), strict=True):
            assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("steps", [None, 4])
    def test_the_order_of_the_boxes_does_not_matter(self, vote: Vote, steps: int | None) -> None:
        case = crowd(7, steps=steps)
        expected = vote(*case)
        for seed in range(3):
            order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
            for ours, theirs in zip(vote(*(value[order] for value in case)), expected, strict=True):
                assert torch.equal(ours, theirs)

    def test_classes_stand_alone(self, vote: Vote) -> None:
        case = crowd(8, count=400, classes=4)
        together = rows(vote(*case))
        alone = [row for label in range(4) for row in rows(vote(*(value[case[2] == label] for value in case)))]
        assert sorted(together) == sorted(alone)

    def test_copies_of_a_box_become_one(self, vote: Vote) -> None:
        case = torch.tensor([[1.0, 2.0, 11.0, 22.0]] * 5), torch.full((5,), 0.5), torch.zeros(5, dtype=torch.int64)
        boxes, scores, labels = vote(*case)
        assert boxes.tolist() == [[1, 2, 11, 22]]
        assert (scores.tolist(), labels.tolist()) == ([0.5], [0])

    def test_boxes_without_area_are_alone(self, vote: Vote) -> None:
        case = torch.full((3, 4), 2.0), torch.tensor([0.5, 0.7, 0.6]), torch.zeros(3, dtype=torch.int64)
        assert vote(*case)[1].tolist() == pytest.approx([0.7, 0.6, 0.5])

    def test_scores_of_0_give_no_nan(self, vote: Vote) -> None:
        case = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8]]), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
        assert rows(vote(*case)) == [(0.0, 0, [0, 0, 9, 8])]

    def test_nothing_and_one(self, vote: Vote) -> None:
        boxes, scores, labels = vote(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
        assert labels.dtype == torch.int64
        one = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.01]), torch.tensor([79])
        for ours, theirs in zip(vote(*one), one, strict=True):
            assert torch.equal(ours, theirs)

    @pytest.mark.gpu
    def test_on_the_gpu_it_is_the_same(self, vote: Vote) -> None:
        case = crowd(9, count=2000, classes=20, steps=50)
        found = vote(*(value.cuda() for value in case))
        for ours, theirs in zip(found, vote(*case), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)


def test_many_boxes_of_few_and_of_many_classes() -> None:
    """Full and nearly empty classes together, more than one chunk of some."""
    case = crowd(10, count=900, classes=30)
    case[2][:500] = 3
    assert_same(box_vote(*case), slow(*case, 0.45, None))
    assert_same(soft_box_vote(*case), slow(*case, 0.45, 0.05))
