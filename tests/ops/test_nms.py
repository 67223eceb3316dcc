"""Greedy suppression: exact, whatever the chains of overlaps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import reference
import torch
from torch import Tensor, nn

from singleshot.ops import greedy
from singleshot.ops import nms as module
from singleshot.ops.nms import class_nms_sorted, first_marked, nms, nms_sorted, soft_nms, survivors

Form = Callable[..., Tensor]


def random_boxes(rows: int, count: int, seed: int) -> Tensor:
    """Crowded boxes on a grid of whole pixels, so that equal overlaps happen."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 12, (rows, count, 2), generator=generator)
    return torch.cat([low, low + torch.randint(2, 12, (rows, count, 2), generator=generator)], -1).float()


def chain(count: int, shift: float = 1.0) -> Tensor:
    """Boxes of side 3 in a row: each overlaps its neighbours by half, and nothing else much."""
    left = torch.arange(count) * shift
    return torch.stack([left, torch.zeros(count), left + 3, torch.full((count,), 3.0)], 1)


def slow(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    alive = torch.zeros_like(valid)
    for row in range(len(boxes)):
        index = valid[row].nonzero()[:, 0]
        scores = [-float(i) for i in range(len(index))]  # sorted already
        for kept in reference.greedy_nms(boxes[row][index].tolist(), scores, threshold):
            alive[row, index[kept]] = True
    return alive


@pytest.mark.parametrize("form", [nms_sorted, module._in_chunks])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45, 0.5, 0.75, 1.0])
def test_equals_the_slow_greedy_on_random_boxes(threshold: float, form: Form) -> None:
    for seed in range(6):
        boxes = random_boxes(5, 40, seed)
        valid = torch.rand(5, 40, generator=torch.Generator().manual_seed(seed)) > 0.2
        assert torch.equal(form(boxes, valid, threshold), slow(boxes, valid, threshold))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("form", [nms_sorted, module._in_chunks])
def test_the_chunks_change_nothing(chunk: int, form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = random_boxes(6, 150, seed=1)
    filled = torch.tensor([150, 140, 64, 5, 0, 1])[:, None] > torch.arange(150)  # as sorted candidates are
    holes = torch.rand(6, 150, generator=torch.Generator().manual_seed(0)) > 0.3
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(greedy, "_FIRST", chunk)
    for valid in (filled, filled & holes):
        for threshold in (0.0, 0.2, 0.45):
            assert torch.equal(form(boxes, valid, threshold), slow(boxes, valid, threshold))


class TestEnough:
    @pytest.mark.parametrize("number", [1, 5, 40, 1000])
    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
    @pytest.mark.parametrize("form", [nms_sorted, module._in_chunks])
    def test_the_first_are_those_of_nms_over_all(
        self, number: int, threshold: float, form: Form, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_CHUNK", 16)
        monkeypatch.setattr(greedy, "_FIRST", 8)
        boxes = random_boxes(3, 100, seed=0)
        valid = torch.rand(3, 100, generator=torch.Generator().manual_seed(1)) < 0.8
        everything = slow(boxes, valid, threshold)
        found = form(boxes, valid, threshold, enough=number)
        for alive in (found, everything):
            alive &= alive.cumsum(1) <= number
        assert torch.equal(found, everything)

    def test_ends_early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def counted(rivals: Tensor, valid: Tensor) -> Tensor:
            calls.append(valid.shape[1])
            return survivors(rivals, valid)

        monkeypatch.setattr(module, "_CHUNK", 16)
        monkeypatch.setattr(module, "survivors", counted)
        module._in_chunks(random_boxes(2, 100, seed=0), torch.ones(2, 100, dtype=torch.bool), 0.9, enough=10)
        assert calls == [16]

    def test_ends_early_on_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(greedy, "_FIRST", 16)
        alive = nms_sorted(chain(100, 3.0)[None], torch.ones(1, 100, dtype=torch.bool), 0.9, enough=10)
        assert alive[0].tolist() == [True] * 16 + [False] * 84


@pytest.mark.parametrize("count", [1, 2, 3, 50, 101])
def test_chains_where_one_box_decides_all_the_others(count: int) -> None:
    boxes = chain(count)[None]  # neighbours: IoU 0.5; next but one: 0.2
    valid = torch.ones(1, count, dtype=torch.bool)
    assert nms_sorted(boxes, valid, 0.4)[0].tolist() == [i % 2 == 0 for i in range(count)]
    assert torch.equal(nms_sorted(boxes, valid, 0.1), slow(boxes, valid, 0.1))


def test_chain_in_the_worst_order() -> None:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    boxes, valid = chain(60)[order][None], torch.ones(1, 60, dtype=torch.bool)
    assert torch.equal(nms_sorted(boxes, valid, 0.4), slow(boxes, valid, 0.4))


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = chain(3)[None]
    valid = torch.tensor([[True, True, True]])
    assert nms_sorted(boxes, valid, 0.4)[0].tolist() == [True, False, True]
    invalid_first = torch.tensor([[False, True, True]])
    assert nms_sorted(boxes, invalid_first, 0.4)[0].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("second", "threshold"),
    [([0.0, 0.0, 10.0, 5.0], 0.5), ([0.0, 0.0, 9.0, 5.0], 0.45), ([0.0, 0.0, 10.0, 3.0], 0.3)],
)
def test_overlap_equal_to_the_threshold_survives(second: list[float], threshold: float) -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], second]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert nms_sorted(boxes, valid, threshold).all()
    assert nms_sorted(boxes, valid, threshold - 1e-4)[0].tolist() == [True, False]


def test_identical_boxes_leave_the_first() -> None:
    boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0]]).expand(1, 7, 4)
    assert nms_sorted(boxes, torch.ones(1, 7, dtype=torch.bool), 0.45)[0].tolist() == [True] + [False] * 6


def test_boxes_without_area_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[[2.0, 2.0, 2.0, 2.0]] * 3])
    assert nms_sorted(boxes, torch.ones(1, 3, dtype=torch.bool), 0.45).all()


def test_rows_stand_alone_also_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = random_boxes(7, 30, seed=3)
    valid = torch.ones(7, 30, dtype=torch.bool)
    together = nms_sorted(boxes, valid, 0.3)
    monkeypatch.setattr(module, "_BLOCK", 2 * 30 * 30)
    assert torch.equal(module._in_chunks(boxes, valid, 0.3), together)
    alone = torch.cat([nms_sorted(boxes[i : i + 1], valid[i : i + 1], 0.3) for i in range(7)])
    assert torch.equal(alone, together)


def test_nothing_to_suppress() -> None:
    assert nms_sorted(torch.zeros(0, 5, 4), torch.zeros(0, 5, dtype=torch.bool), 0.5).shape == (0, 5)
    assert nms_sorted(torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool), 0.5).shape == (3, 0)
    assert not nms_sorted(torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.bool), 0.5).any()


class Nms(nn.Module):
    def forward(self, boxes: Tensor, valid: Tensor) -> Tensor:
        return nms_sorted(boxes, valid, 0.4)


def test_export_keeps_the_loop_and_agrees() -> None:
    boxes, valid = random_boxes(4, 25, seed=0), torch.ones(4, 25, dtype=torch.bool)
    program = torch.export.export(Nms(), (boxes, valid)).module()
    for seed in range(3):
        boxes = random_boxes(4, 25, seed)
        valid = torch.rand(4, 25, generator=torch.Generator().manual_seed(seed)) > 0.3
        assert torch.equal(program(boxes, valid), nms_sorted(boxes, valid, 0.4))
    long = chain(25)[None].repeat(4, 1, 1)  # 25 rounds: more than the traced example needed
    assert torch.equal(program(long, torch.ones(4, 25, dtype=torch.bool))[0], torch.arange(25) % 2 == 0)


def test_compile_without_graph_breaks_and_agrees() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(Nms(), fullgraph=True, backend="aot_eager")
    for seed in range(2):
        boxes, valid = random_boxes(4, 25, seed), torch.ones(4, 25, dtype=torch.bool)
        assert torch.equal(compiled(boxes, valid), nms_sorted(boxes, valid, 0.4))


@pytest.mark.slow
def test_compile_with_the_default_backend_agrees() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(Nms(), fullgraph=True)
    boxes, valid = random_boxes(4, 25, 1), torch.ones(4, 25, dtype=torch.bool)
    assert torch.equal(compiled(boxes, valid), nms_sorted(boxes, valid, 0.4))


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.6])
def test_ragged_form_is_greedy_per_class(threshold: float) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        boxes = random_boxes(1, 60, seed)[0]
        scores = torch.randint(0, 12, (60,), generator=generator) / 12  # ties keep their order
        labels = torch.randint(0, 3, (60,), generator=generator)
        expected = []
        for label in range(3):
            index = (labels == label).nonzero()[:, 0]
            kept = reference.greedy_nms(boxes[index].tolist(), scores[index].tolist(), threshold)
            expected += index[kept].tolist()
        expected.sort(key=lambda i: (-scores[i].item(), i))
        assert nms(boxes, scores, labels, threshold).tolist() == expected


def test_ragged_form_without_boxes() -> None:
    kept = nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


@pytest.mark.gpu
def test_on_the_gpu_the_same_survive() -> None:
    boxes, valid = random_boxes(20, 400, seed=0), torch.ones(20, 400, dtype=torch.bool)
    expected = nms_sorted(boxes, valid, 0.45)
    assert torch.equal(nms_sorted(boxes.cuda(), valid.cuda(), 0.45).cpu(), expected)
    with torch.autocast("cuda", torch.float16):
        assert torch.equal(nms_sorted(boxes.cuda(), valid.cuda(), 0.45).cpu(), expected)


def slow_by_class(boxes: Tensor, labels: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """A class at a time."""
    parts = [slow(boxes, valid & (labels == label), threshold) for label in sorted(set(labels.flatten().tolist()))]
    return torch.stack(parts).any(0)


@pytest.mark.parametrize("chunk", [7, 16, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("form", [class_nms_sorted, module._class_in_chunks])
def test_by_class_equals_a_class_at_a_time(
    monkeypatch: pytest.MonkeyPatch, threshold: float, chunk: int, form: Form
) -> None:
    monkeypatch.setattr(module, "_CLASS_CHUNK", chunk)
    monkeypatch.setattr(greedy, "_FIRST", chunk)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        boxes = random_boxes(4, 50, seed)
        labels = torch.randint(0, 3, (4, 50), generator=generator)
        valid = torch.rand(4, 50, generator=generator) > 0.2
        expected = slow_by_class(boxes, labels, valid, threshold)
        assert torch.equal(form(boxes, labels, valid, threshold), expected)
        first = form(boxes, labels, valid, threshold, enough=5)
        for row, whole in zip(first, expected, strict=True):
            assert row.nonzero()[:5, 0].tolist() == whole.nonzero()[:5, 0].tolist()
            assert not (row & ~whole).any()


def test_by_class_is_exact_far_from_the_origin() -> None:
    """Classes that are moved apart by offsets lose these bits of the coordinates."""
    side = 2.0**-6
    boxes = torch.tensor([[1000.0, 0.0, 1000 + 4 * side, 1.0], [1000.0, 0.0, 1000 + 3 * side, 1.0]])[None]
    labels, valid = torch.full((1, 2), 79), torch.ones(1, 2, dtype=torch.bool)
    assert class_nms_sorted(boxes, labels, valid, 0.75).tolist() == [[True, True]]  # the IoU is 3/4
    assert class_nms_sorted(boxes, labels, valid, 0.74).tolist() == [[True, False]]
    assert class_nms_sorted(boxes, labels - torch.tensor([0, 1]), valid, 0.0).tolist() == [[True, True]]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (2, 1)])
def test_by_class_of_few_boxes(shape: tuple[int, int]) -> None:
    labels, valid = torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool)
    alive = class_nms_sorted(torch.zeros(*shape, 4), labels, valid, 0.5, enough=3)
    assert torch.equal(alive, valid)


def test_first_marked() -> None:
    marked = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    index, found = first_marked(marked, 2)
    assert found.tolist() == [[True, True], [True, False], [False, False]]
    assert index[0].tolist() == [1, 3]
    assert index[1, 0] == 3


def slow_soft(boxes: Tensor, scores: Tensor, iou: float, lowest: float) -> Tensor:
    """Bodla et al., figure 2, with lists; numbers are rounded where float32 rounds."""
    result = torch.zeros_like(scores)
    for row in range(len(boxes)):
        left = {i: score for i, score in enumerate(scores[row].tolist()) if score >= reference.as_float32(lowest)}
        left = {i: score for i, score in left.items() if score > 0}
        while left:
            best = max(left, key=lambda i: (left[i], -i))
            result[row, best] = left.pop(best)
            for i, score in list(left.items()):
                overlap = reference.iou32(boxes[row, best].tolist(), boxes[row, i].tolist())
                if overlap > reference.as_float32(iou):
                    left[i] = reference.as_float32(score * reference.as_float32(1 - overlap))
                    if left[i] < reference.as_float32(lowest) or not left[i]:
                        del left[i]
    return result


def some_scores(rows: int, count: int, seed: int, *, steps: int | None = None) -> Tensor:
    """A fifth of them 0; with `steps`, so few different ones that most are equal to others."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, count, generator=generator) * (torch.rand(rows, count, generator=generator) > 0.2)
    return (scores * steps).round() / steps if steps else scores


class TestSoft:
    @pytest.mark.parametrize("steps", [None, 6])
    @pytest.mark.parametrize(("iou", "lowest"), [(0.3, 0.016), (0.5, 0.1), (0.0, 0.0), (0.75, 0.3)])
    def test_equals_the_slow_form_bit_for_bit(self, iou: float, lowest: float, steps: int | None) -> None:
        for seed in range(3):
            boxes, scores = random_boxes(4, 45, seed), some_scores(4, 45, seed, steps=steps)
            scores[2] = 0  # nothing in this row
            scores[3, 3:] = 0  # done long before the others
            found = soft_nms(boxes, scores, iou, lowest)
            assert torch.equal(found, slow_soft(boxes, scores, iou, lowest))
            assert not found[2].any()

    def test_by_hand(self) -> None:
        boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [50, 0, 60, 10]]])
        # The first lowers the second by its IoU of 1/2 to 0.4, the third by 2/5 to 0.42, which is then the best of
        # these two: their IoU is 4/5, and 0.08 remains. The last one touches nobody.
        scores = torch.tensor([[0.9, 0.8, 0.7, 0.2]])
        assert soft_nms(boxes, scores, 0.3, 0.05)[0].tolist() == pytest.approx([0.9, 0.08, 0.42, 0.2])
        assert soft_nms(boxes, scores, 0.3, 0.1)[0].tolist() == pytest.approx([0.9, 0, 0.42, 0.2])
        assert soft_nms(boxes, scores, 0.45, 0.1)[0].tolist() == pytest.approx([0.9, 0, 0.7, 0.2])
        assert scores[0].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.2])  # the input is left alone

    def test_who_falls_behind_is_lowered_twice(self) -> None:
        boxes = chain(3)[None]  # neighbours: IoU 0.5
        scores = torch.tensor([[0.9, 0.6, 0.5]])
        assert soft_nms(boxes, scores, 0.3, 0.1)[0].tolist() == pytest.approx([0.9, 0.15, 0.5])
        assert soft_nms(boxes, scores, 0.3, 0.2)[0].tolist() == pytest.approx([0.9, 0, 0.5])

    def test_overlap_and_score_at_their_thresholds_stay(self) -> None:
        boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5]]])
        scores = torch.tensor([[0.75, 0.5]])
        assert torch.equal(soft_nms(boxes, scores, 0.5, 0.1), scores)
        assert soft_nms(boxes, scores, 0.49, 0.25).tolist() == [[0.75, 0.25]]
        assert soft_nms(boxes, scores, 0.49, 0.251).tolist() == [[0.75, 0]]

    def test_limits(self) -> None:
        boxes, scores = random_boxes(3, 30, 1), some_scores(3, 30, 1)
        assert torch.equal(soft_nms(boxes, scores, 1.0, 0.0), scores)
        same = boxes[:, :1].expand(3, 30, 4)  # copies vanish; the best is left as it is
        assert torch.equal(soft_nms(same, scores, 0.3, 0.0).sum(1), scores.amax(1))
        flat = torch.full((1, 4, 4), 2.0)  # no area, no overlap
        assert torch.equal(soft_nms(flat, scores[:1, :4], 0.0, 0.0), scores[:1, :4])

    def test_the_order_of_the_boxes_does_not_matter(self) -> None:
        boxes, scores = random_boxes(2, 40, 2), some_scores(2, 40, 2)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
        expected = soft_nms(boxes, scores, 0.3, 0.01)[:, order]
        assert torch.equal(soft_nms(boxes[:, order], scores[:, order], 0.3, 0.01), expected)

    def test_rows_stand_alone(self) -> None:
        boxes, scores = random_boxes(5, 30, 3), some_scores(5, 30, 3, steps=10)
        together = soft_nms(boxes, scores, 0.3, 0.01)
        alone = torch.cat([soft_nms(boxes[i : i + 1], scores[i : i + 1], 0.3, 0.01) for i in range(5)])
        assert torch.equal(alone, together)

    def test_broken_numbers_lower_nobody(self) -> None:
        boxes, scores = random_boxes(1, 30, 4), some_scores(1, 30, 4)
        expected = soft_nms(boxes[:, 2:], scores[:, 2:], 0.3, 0.01)
        scores[0, :2] = torch.tensor([torch.nan, 0.0])
        boxes[0, 1] = torch.nan
        found = soft_nms(boxes, scores, 0.3, 0.01)
        assert found[0, :2].tolist() == [0, 0]
        assert torch.equal(found[:, 2:], expected)

    @pytest.mark.parametrize("shape", [(0, 5), (3, 0), (2, 1)])
    def test_of_few_boxes(self, shape: tuple[int, int]) -> None:
        scores = torch.full(shape, 0.5)
        assert torch.equal(soft_nms(torch.zeros(*shape, 4), scores, 0.3, 0.016), scores)

    @pytest.mark.parametrize("how", ["export", "compile", pytest.param("inductor", marks=pytest.mark.slow)])
    def test_traced_it_is_the_same(self, how: str) -> None:
        inputs = (random_boxes(4, 25, 0), some_scores(4, 25, 0))
        torch._dynamo.reset()
        program: Callable[[Tensor, Tensor], Tensor]
        match how:
            case "export":
                rows = torch.export.Dim("rows", min=2, max=1000)
                program = torch.export.export(Soft(), inputs, dynamic_shapes=({0: rows}, {0: rows})).module()
            case "compile":
                program = torch.compile(Soft(), fullgraph=True, backend="aot_eager")
            case _:
                program = torch.compile(Soft(), fullgraph=True)
        for seed in range(3):
            size = 4 + seed if how == "export" else 4
            boxes, scores = random_boxes(size, 25, seed), some_scores(size, 25, seed, steps=8)
            found, expected = program(boxes, scores), soft_nms(boxes, scores, 0.3, 0.016)
            if how == "inductor":  # may fuse a product and a sum into one rounding
                torch.testing.assert_close(found, expected)
            else:
                assert torch.equal(found, expected)
        assert not program(boxes, torch.zeros_like(scores)).any()

    @pytest.mark.gpu
    def test_on_the_gpu_it_is_the_same(self) -> None:
        boxes, scores = random_boxes(20, 400, 0), some_scores(20, 400, 0, steps=50)
        found = soft_nms(boxes.cuda(), scores.cuda(), 0.3, 0.016).cpu()
        torch.testing.assert_close(found, soft_nms(boxes, scores, 0.3, 0.016))


class Soft(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return soft_nms(boxes, scores, 0.3, 0.016)
