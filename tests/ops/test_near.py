"""Pairs that overlap, found by place: the same as from the comparison of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from singleshot.ops.boxes import coverage, pairwise_iou
from singleshot.ops.near import NearBoxes

KINDS = ("grid", "any", "thin", "tiny", "wide apart", "one place")


def boxes_of(kind: str, count: int, generator: torch.Generator) -> Tensor:
    corner, size = torch.rand(count, 2, generator=generator) * 100, torch.rand(count, 2, generator=generator)
    match kind:
        case "grid":  # equal boxes, equal overlaps, sides in common
            corner, size = (corner / 10).round() * 10, (size * 4).round() * 10
        case "any":
            size = torch.exp(size * 9 - 2)
        case "thin":
            size = torch.exp(size * torch.tensor([1.0, 6.0]))
        case "tiny":
            corner, size = corner * 1e-3, size * 1e-3
        case "wide apart":
            corner, size = corner * 1e6, size * 1e5
        case "one place":
            corner, size = corner * 0 + 7, size * 3
    return torch.cat([corner, corner + size], 1)


def as_matrix(found: object, shape: torch.Size) -> Tensor:
    matrix = torch.zeros(shape)
    last = -1
    for pairs in found:  # type: ignore[attr-defined]
        if len(pairs.query):
            assert (np.diff(pairs.query) >= 0).all()
            assert pairs.query[0] > last  # the pairs of a query are never in two parts
            last = pairs.query[-1]
        assert not matrix[pairs.query, pairs.box].any()
        matrix[pairs.query, pairs.box] = torch.from_numpy(pairs.overlap)
    return matrix


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_pairs_of_the_whole_matrix(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("singleshot.ops.near._PAIRS", 50)
    monkeypatch.setattr("singleshot.ops.near._QUERIES", 7)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        boxes, queries = boxes_of(kind, 90, generator), boxes_of(kind, 25, generator)
        near = NearBoxes(boxes.numpy())
        iou, share = pairwise_iou(queries, boxes), coverage(boxes, queries).T
        for least in (0.0, 1e-3, 0.2, 0.5, 1.0):
            expected = torch.where(iou >= least, iou, 0.0)
            assert torch.equal(as_matrix(near.overlapping(queries.numpy(), least), iou.shape), expected)
        for least in (0.1, 0.5, 1.0):
            expected = torch.where(share >= least, share, 0.0)
            assert torch.equal(as_matrix(near.inside(queries.numpy(), least), iou.shape), expected)


def test_images_do_not_meet() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, queries = boxes_of("any", 60, generator), boxes_of("any", 20, generator)
    images, of_query = np.arange(60) // 20, np.arange(20) % 3
    near = NearBoxes(boxes.numpy(), images)
    iou = torch.where(torch.from_numpy(of_query[:, None] == images), pairwise_iou(queries, boxes), 0.0)
    assert torch.equal(as_matrix(near.overlapping(queries.numpy(), 0.0, of_query), iou.shape), iou)


def test_boxes_without_area_or_without_numbers_are_near_nothing() -> None:
    inverted, point, lost = [9.0, 9.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0], [float("nan"), 0.0, 8.0, float("inf")]
    strange, good = np.array([inverted, point, lost], np.float32), np.array([[0, 0, 10, 10]], np.float32)
    for boxes, queries in ((strange, good), (good, strange), (strange, strange), (good[:0], good), (good, good[:0])):
        near = NearBoxes(boxes)
        assert sum(len(pairs.query) for pairs in near.overlapping(queries, 0.0)) == 0
        assert sum(len(pairs.query) for pairs in near.inside(queries, 0.5)) == 0
