"""Greedy suppression: exact, whatever the chains of overlaps."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor, nn

from singleshot.ops import nms as module
from singleshot.ops.nms import class_nms_sorted, first_marked, nms, nms_sorted


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


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45, 0.5, 0.75, 1.0])
def test_equals_the_slow_greedy_on_random_boxes(threshold: float) -> None:
    for seed in range(6):
        boxes = random_boxes(5, 40, seed)
        valid = torch.rand(5, 40, generator=torch.Generator().manual_seed(seed)) > 0.2
        assert torch.equal(nms_sorted(boxes, valid, threshold), slow(boxes, valid, threshold))


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
    assert torch.equal(nms_sorted(boxes, valid, 0.3), together)
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
def test_by_class_equals_a_class_at_a_time(monkeypatch: pytest.MonkeyPatch, threshold: float, chunk: int) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        boxes = random_boxes(4, 50, seed)
        labels = torch.randint(0, 3, (4, 50), generator=generator)
        valid = torch.rand(4, 50, generator=generator) > 0.2
        expected = slow_by_class(boxes, labels, valid, threshold)
        assert torch.equal(class_nms_sorted(boxes, labels, valid, threshold), expected)
        first = class_nms_sorted(boxes, labels, valid, threshold, enough=5)
        for row, survivors in zip(first, expected, strict=True):
            assert row.nonzero()[:5, 0].tolist() == survivors.nonzero()[:5, 0].tolist()
            assert not (row & ~survivors).any()


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
