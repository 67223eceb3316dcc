"""Box arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch
from torch import Tensor

from singleshot.ops.boxes import (
    aligned_giou,
    aligned_iou,
    box_area,
    box_convert,
    clip_boxes,
    coverage,
    intersection,
    pairwise_iou,
)


def random_boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 80
    return torch.cat([low, low + torch.rand(count, 2, generator=generator) * 40 + 0.5], 1)


def test_area_and_intersection_worked_by_hand() -> None:
    first, second = torch.tensor([0.0, 0.0, 4.0, 3.0]), torch.tensor([2.0, 1.0, 7.0, 2.5])
    assert box_area(first) == 12
    assert intersection(first, second) == 3  # 2 wide, 1.5 high
    assert aligned_iou(first, second).item() == pytest.approx(3 / (12 + 7.5 - 3))


def test_no_plus_one() -> None:
    assert box_area(torch.tensor([3.0, 3.0, 4.0, 4.0])) == 1
    touching = torch.tensor([4.0, 3.0, 5.0, 4.0])
    assert intersection(torch.tensor([3.0, 3.0, 4.0, 4.0]), touching) == 0


def test_inverted_box_has_no_area() -> None:
    assert box_area(torch.tensor([4.0, 4.0, 0.0, 0.0])) == 0


def test_pairwise_iou_equals_the_reference() -> None:
    first, second = random_boxes(30), random_boxes(40, seed=1)
    expected = torch.tensor([[reference.iou(a, b) for b in second.tolist()] for a in first.tolist()])
    assert (expected > 0).sum() > 50
    torch.testing.assert_close(pairwise_iou(first, second), expected)


def test_pairwise_iou_in_a_batch_equals_one_by_one() -> None:
    first, second = random_boxes(24).reshape(2, 3, 4, 4), random_boxes(12, seed=1).reshape(2, 3, 2, 4)
    together = pairwise_iou(first, second)
    assert together.shape == (2, 3, 4, 2)
    assert torch.equal(together[1, 2], pairwise_iou(first[1, 2], second[1, 2]))
    assert torch.equal(pairwise_iou(first, second[0, 0])[1, 2], pairwise_iou(first[1, 2], second[0, 0]))


def test_iou_is_symmetric_and_1_with_itself() -> None:
    boxes = random_boxes(50)
    iou = pairwise_iou(boxes, boxes)
    assert torch.equal(iou, iou.T)
    assert torch.equal(iou.diagonal(), torch.ones(50))
    assert iou.min() >= 0
    assert iou.max() <= 1


def test_boxes_without_area_have_iou_0() -> None:
    points = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 5.0]])
    assert torch.equal(pairwise_iou(points, points), torch.zeros(2, 2))
    assert torch.equal(pairwise_iou(points, torch.tensor([[0.0, 0.0, 9.0, 9.0]])), torch.zeros(2, 1))
    assert torch.equal(aligned_iou(points, points), torch.zeros(2))


def test_no_boxes() -> None:
    assert pairwise_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert pairwise_iou(torch.zeros(3, 4), torch.zeros(0, 4)).shape == (3, 0)
    assert coverage(torch.zeros(3, 4), torch.zeros(0, 4)).shape == (3, 0)
    assert box_area(torch.zeros(0, 4)).shape == (0,)


def test_the_arithmetic_in_place_leaves_inputs_and_gradients_right() -> None:
    first, second = random_boxes(6).double(), random_boxes(6, seed=1).double()
    first_before, second_before = first.clone(), second.clone()
    pairwise_iou(first, second)
    assert torch.equal(first, first_before)
    assert torch.equal(second, second_before)
    first.requires_grad_()
    (pairs,) = torch.autograd.grad(pairwise_iou(first, second).diagonal().sum(), first)
    (aligned,) = torch.autograd.grad(aligned_iou(first, second).sum(), first)
    assert aligned.abs().sum() > 0
    torch.testing.assert_close(pairs, aligned)


def test_coverage_is_the_share_of_the_box_not_of_the_region() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 5.0, 5.0]])
    regions = torch.tensor([[1.0, 0.0, 100.0, 100.0], [50.0, 50.0, 60.0, 60.0]])
    torch.testing.assert_close(coverage(boxes, regions), torch.tensor([[0.5, 0.0], [0.9, 0.0], [0.0, 0.0]]))


def test_clip() -> None:
    boxes = torch.tensor([[-5.0, -1.0, 30.0, 8.0], [25.0, 12.0, 40.0, 20.0], [1.0, 2.0, 3.0, 4.0]])
    expected = torch.tensor([[0.0, 0.0, 20.0, 8.0], [20.0, 10.0, 20.0, 10.0], [1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(clip_boxes(boxes, 10, 20), expected)


def test_clip_with_the_size_of_each_image() -> None:
    boxes = torch.tensor([[[-1.0, -1.0, 99.0, 99.0]], [[-1.0, -1.0, 99.0, 99.0]]])
    sizes = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    clipped = clip_boxes(boxes, sizes[:, 0, None, None], sizes[:, 1, None, None])
    assert clipped.tolist() == [[[0, 0, 20, 10]], [[0, 0, 40, 30]]]


@pytest.mark.parametrize("source", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("target", ["xyxy", "xywh", "cxcywh"])
def test_convert_by_hand_and_back(source: str, target: str) -> None:
    forms = {
        "xyxy": torch.tensor([[2.0, 4.0, 6.0, 10.0]]),
        "xywh": torch.tensor([[2.0, 4.0, 4.0, 6.0]]),
        "cxcywh": torch.tensor([[4.0, 7.0, 4.0, 6.0]]),
    }
    assert torch.equal(box_convert(forms[source], source, target), forms[target])


def test_convert_refuses_unknown_forms() -> None:
    with pytest.raises(ValueError, match="xyxy, xywh or cxcywh"):
        box_convert(torch.zeros(1, 4), "yolo", "xyxy")
    with pytest.raises(ValueError, match="xyxy, xywh or cxcywh"):
        box_convert(torch.zeros(1, 4), "xyxy", "yolo")


def test_convert_of_a_box_to_its_own_form_is_a_copy_without_rounding() -> None:
    boxes = torch.tensor([[0.1, 0.2, 1e8, 1e8]])
    copy = box_convert(boxes, "xyxy", "xyxy")
    assert torch.equal(copy, boxes)
    assert copy.data_ptr() != boxes.data_ptr()


class TestGeneralisedIoU:
    def test_worked_by_hand(self) -> None:
        first, second = torch.tensor([0.0, 0.0, 4.0, 3.0]), torch.tensor([2.0, 1.0, 7.0, 2.5])
        union, hull = 12 + 7.5 - 3, 7 * 3
        assert aligned_giou(first, second).item() == pytest.approx(3 / union - (hull - union) / hull)

    def test_boxes_that_do_not_meet(self) -> None:
        box = torch.tensor([0.0, 0.0, 1.0, 1.0])
        near, far = torch.tensor([1.0, 0.0, 2.0, 1.0]), torch.tensor([9.0, 0.0, 10.0, 1.0])
        assert aligned_giou(box, near) == 0  # they touch: the hull is their union
        assert aligned_giou(box, far).item() == pytest.approx(-0.8)

    def test_limits(self) -> None:
        first, second = random_boxes(200), random_boxes(200, seed=1)
        giou, iou = aligned_giou(first, second), aligned_iou(first, second)
        assert (giou <= iou + 1e-6).all()
        assert (giou >= -1).all()
        assert torch.equal(giou, aligned_giou(second, first))
        torch.testing.assert_close(aligned_giou(first, first), torch.ones(200))

    def test_inside_of_one_another_it_is_the_iou(self) -> None:
        outer, inner = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([2.0, 3.0, 4.0, 5.0])
        assert aligned_giou(outer, inner) == aligned_iou(outer, inner)

    def test_does_not_depend_on_place_and_scale(self) -> None:
        first, second = random_boxes(50), random_boxes(50, seed=1)
        torch.testing.assert_close(
            aligned_giou(first * 3 + 7, second * 3 + 7), aligned_giou(first, second), rtol=1e-4, atol=1e-5
        )

    def test_boxes_without_area(self) -> None:
        point = torch.tensor([3.0, 3.0, 3.0, 3.0])
        assert aligned_giou(point, point) == 0
        assert aligned_giou(point, torch.tensor([4.0, 4.0, 4.0, 4.0])) == -1
        assert aligned_giou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)

    @pytest.mark.parametrize("measure", [aligned_iou, aligned_giou])
    def test_gradients_are_finite_for_boxes_without_area(self, measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        boxes = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 1.0, 1.0]])
        first = boxes.repeat(4, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(measure(first, boxes.repeat_interleave(4, 0)).sum(), first)
        assert gradient.isfinite().all()
