"""Labels 1..K both ways."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from singleshot.detectors import Detector, ssd, torchvision_labels
from singleshot.errors import UserError

IMAGE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


@functools.cache
def detector() -> Detector:
    torch.manual_seed(0)
    return ssd(num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=64)


def target(*labels: int) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]] * len(labels)).reshape(-1, 4),
        "labels": torch.tensor(labels).long(),
    }


class Spy(nn.Module):
    """Notes the targets that it is given."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def forward(self, images: object, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        self.seen += [one["labels"].tolist() for one in targets]
        return {"box": torch.tensor(1.0)}


def test_training_targets_are_shifted() -> None:
    wrapped = torchvision_labels(detector())
    spy = wrapped.detector = Spy()  # type: ignore[assignment]
    given = [target(1, 2), target()]
    assert wrapped([IMAGE, IMAGE], given) == {"box": torch.tensor(1.0)}
    assert spy.seen == [[0, 1], []]
    assert given[0]["labels"].tolist() == [1, 2]  # the caller's stays as it is


def test_detection() -> None:
    wrapped = torchvision_labels(detector()).eval()
    assert not detector().training
    with torch.no_grad():
        (theirs,), (ours,) = wrapped([IMAGE]), detector()([IMAGE])
    assert torch.equal(theirs["labels"], ours["labels"] + 1)
    assert torch.equal(theirs["boxes"], ours["boxes"])
    assert torch.equal(theirs["scores"], ours["scores"])


@pytest.mark.parametrize("label", [0, 3, -1])
def test_labels_outside(label: int) -> None:
    wrapped = torchvision_labels(detector()).train()
    with pytest.raises(UserError, match=r"target 1: labels must be 1\.\.2 \(0 is background\)"):
        wrapped([IMAGE, IMAGE], [target(1), target(2, label)])


def test_targets_of_a_wrong_form() -> None:
    wrapped = torchvision_labels(detector()).train()
    for wrong in ({"boxes": torch.zeros(1, 4)}, {"labels": [1], "boxes": torch.zeros(1, 4)}):
        with pytest.raises(UserError, match="target 0: expected"):
            wrapped([IMAGE], [wrong])


def test_a_loop_written_for_torchvision_runs() -> None:
    wrapped = torchvision_labels(detector()).train()
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=1e-3)
    losses = wrapped([IMAGE, IMAGE], [target(1), target()])
    total = sum(loss for loss in losses.values())
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
