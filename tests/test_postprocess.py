"""From raw predictions to findings: threshold, candidates, suppression, the best of the image."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.losses.classification import SoftmaxLoss
from singleshot.postprocess import ClassScores, PerClassPostprocess
from singleshot.structures import Anchors

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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("candidates", "detections"), [(400, 200), (15, 200), (400, 12)])
def test_equals_the_slow_form(seed: int, candidates: int, detections: int) -> None:
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


def test_the_papers_numbers() -> None:
    settings = PerClassPostprocess(CODER, given_scores)
    assert (settings.threshold, settings.candidates, settings.iou, settings.detections) == (0.01, 400, 0.45, 200)


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


class Wrapped(torch.nn.Module):
    def __init__(self, step: PerClassPostprocess, anchors: Anchors) -> None:
        super().__init__()
        self.step, self.anchors = step, anchors

    def forward(self, scores: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.step({"scores": scores, "box_deltas": deltas}, self.anchors)
        return found.boxes, found.scores, found.labels


def test_class_scores_leave_the_background_out() -> None:
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = ClassScores(SoftmaxLoss())({"class_logits": logits})
    torch.testing.assert_close(scores, logits.softmax(-1)[..., :3])
