"""What flows between the parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from singleshot.structures import Detections, Targets


def target(count: int) -> dict[str, torch.Tensor]:
    return {"boxes": torch.arange(4.0 * count).reshape(count, 4), "labels": torch.arange(count)}


@pytest.mark.parametrize(
    ("counts", "padded"), [((0, 0), 0), ((1,), 1), ((0, 2), 2), ((3, 1), 4), ((4,), 4), ((5, 0, 2), 8), ((130,), 256)]
)
def test_targets_are_padded_to_a_power_of_two(counts: tuple[int, ...], padded: int) -> None:
    targets = Targets.from_list([target(count) for count in counts])
    assert targets.boxes.shape == (len(counts), padded, 4)
    assert targets.labels.shape == targets.crowd.shape == (len(counts), padded)
    assert targets.labels.dtype == torch.int64
    assert targets.crowd.dtype == torch.bool
    for i, count in enumerate(counts):
        assert torch.equal(targets.boxes[i, :count], target(count)["boxes"])
        assert targets.labels[i, :count].tolist() == list(range(count))
        assert (targets.labels[i, count:] == -1).all()
        assert not targets.crowd[i].any()


def test_targets_of_no_images() -> None:
    assert Targets.from_list([]).labels.shape == (0, 0)


def test_targets_take_other_number_types_and_crowd() -> None:
    given = {
        "boxes": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.float64),
        "labels": torch.tensor([1, 0], dtype=torch.int32),
        "iscrowd": torch.tensor([0, 1], dtype=torch.uint8),
    }
    targets = Targets.from_list([given, target(0)])
    assert targets.boxes.dtype == torch.float32
    assert targets.crowd.tolist() == [[False, True], [False, False]]


def test_detections_become_ragged() -> None:
    found = Detections(
        torch.arange(24.0).reshape(2, 3, 4),
        torch.tensor([[0.9, 0.5, 0.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[2, 1, 0], [0, 0, 0]]),
    )
    first, second = found.to_list()
    assert first["boxes"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert first["labels"].tolist() == [2, 1]
    assert second["boxes"].shape == (0, 4)
    assert second["labels"].dtype == torch.int64


def test_structures_are_frozen() -> None:
    targets = Targets.from_list([target(1)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        targets.boxes = torch.zeros(1)  # type: ignore[misc]
