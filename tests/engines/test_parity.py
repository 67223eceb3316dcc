"""Whether two forms of a detector find the same objects."""

from __future__ import annotations

import numpy as np
import pytest

from singleshot.engines.parity import NEAR, compare, usual_threshold
from singleshot.evaluation.detections import ImageDetections

BOXES = [[10, 10, 50, 50], [60, 60, 90, 90], [100, 10, 140, 30]]


def found(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> ImageDetections:
    names = [0] * len(scores) if labels is None else labels
    return ImageDetections(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(names, np.int64))


def parity(before: ImageDetections, after: ImageDetections, **given: float):  # type: ignore[no-untyped-def]
    return compare([before], [after], [(100, 200)], **{"threshold": 0.3, **given})


def test_the_same() -> None:
    one = found(BOXES, [0.9, 0.8, 0.5])
    got = parity(one, one)
    assert (got.objects, got.matched, got.box, got.score, got.share) == (3, 3, 0, 0, 1)
    assert got.exact


@pytest.mark.parametrize(("apart", "exact"), [(0.009, True), (0.013, False)])
def test_boxes_may_lie_apart_by_a_hundredth_of_a_pixel_and_a_share_of_the_side(apart: float, exact: bool) -> None:
    moved = [[10 + apart, 10, 50, 50], *BOXES[1:]]  # the longer side is 200 pixels: 0.012 are allowed
    got = parity(found(BOXES, [0.9, 0.8, 0.5]), found(moved, [0.9, 0.8, 0.5]))
    assert got.box == pytest.approx(apart)
    assert got.exact is exact


@pytest.mark.parametrize(("apart", "exact"), [(9e-5, True), (1.1e-4, False)])
def test_scores_may_differ_a_little(apart: float, exact: bool) -> None:
    got = parity(found(BOXES, [0.9, 0.8, 0.5]), found(BOXES, [0.9 - apart, 0.8, 0.5]))
    assert got.score == pytest.approx(apart)
    assert got.exact is exact


def test_an_object_that_only_one_form_has() -> None:
    three, two = found(BOXES, [0.9, 0.8, 0.5]), found(BOXES[:2], [0.9, 0.8])
    lost, new = parity(three, two), parity(two, three)
    assert (lost.missing, lost.added, new.missing, new.added) == (1, 0, 0, 1)
    assert not lost.exact
    assert not new.exact
    assert lost.share == pytest.approx(2 / 3)


def test_near_the_threshold_one_form_may_have_it_alone() -> None:
    above = found(BOXES, [0.9, 0.8, 0.3 + NEAR / 25])
    assert parity(above, found(BOXES, [0.9, 0.8, 0.3 - NEAR / 25])).exact
    assert parity(above, found(BOXES[:2], [0.9, 0.8])).exact
    assert not parity(found(BOXES, [0.9, 0.8, 0.31]), found(BOXES[:2], [0.9, 0.8])).exact
    assert parity(found(BOXES, [0.9, 0.8, 0.35]), found(BOXES, [0.9, 0.8, 0.26]), near=0.06).missing == 0


def test_another_label_is_another_object_and_is_counted() -> None:
    got = parity(found(BOXES, [0.9, 0.8, 0.5], [0, 1, 0]), found(BOXES, [0.9, 0.8, 0.5], [0, 0, 0]))
    assert (got.missing, got.added, got.other_labels) == (1, 1, 1)
    assert "1 of them have another label" in "\n".join(got.lines())


def test_equal_boxes_are_told_apart_by_their_scores() -> None:
    same = [BOXES[0], BOXES[0], BOXES[0]]
    assert parity(found(same, [0.9, 0.6, 0.4]), found(same, [0.4, 0.9, 0.6])).exact


def test_order_does_not_count_and_boxes_of_no_area_are_objects() -> None:
    boxes = [[5, 5, 5, 5], *BOXES[:2]]
    assert parity(found(boxes, [0.9, 0.8, 0.7]), found(boxes[::-1], [0.7, 0.8, 0.9])).exact


def test_nothing() -> None:
    none = found([], [])
    got = parity(none, none)
    assert (got.objects, got.share, got.exact) == (0, 1, True)
    assert "none found" in got.lines()[0]


def test_a_lower_threshold_where_the_usual_one_leaves_nothing() -> None:
    low = found(BOXES * 3, [0.02, 0.019, 0.018, 0.017, 0.016, 0.015, 0.014, 0.013, 0.012])
    assert usual_threshold([low]) == 0.016
    assert usual_threshold([found(BOXES, [0.9, 0.8, 0.5])]) == 0.3
    assert usual_threshold([found([], [])]) == 0.3
    assert compare([low], [low], [(9, 9)]).objects == 5
