"""Every classification loss in every detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot.detectors import BUILDERS, Detector
from singleshot.detectors.parts import find_part, restore_argument, store_argument
from singleshot.losses import CLASSIFICATION_LOSSES
from singleshot.training.recipe import from_yaml, override
from singleshot.weights.checkpoint import load, save

LOSSES = [*(find_part(name)() for name in CLASSIFICATION_LOSSES), restore_argument({"type": "OHEMLoss", "ratio": 3.0})]
PICTURES = [torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def target(*boxes: list[float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
        "labels": torch.arange(len(boxes)) % 3,
    }


def built(builder: str, **arguments: Any) -> Detector:
    torch.manual_seed(0)
    return BUILDERS[builder](
        num_classes=3, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=(64, 128), **arguments
    ).train()


def every_loss_in_every_builder() -> list[Any]:
    """The fast tests have each loss in one builder, the slow ones all pairs."""
    return [
        pytest.param(
            builder,
            loss,
            id=f"{builder}-{type(loss).__name__}{'_ratio' * (loss == LOSSES[-1])}",
            marks=() if (row + column) % len(BUILDERS) == 0 else pytest.mark.slow,
        )
        for column, loss in enumerate(LOSSES)
        for row, builder in enumerate(BUILDERS)
    ]


@pytest.mark.parametrize(("builder", "loss"), every_loss_in_every_builder())
def test_trains_and_travels_in_a_file(builder: str, loss: Any, tmp_path: Path) -> None:
    detector = built(builder, classification=store_argument(loss))
    assert detector.criterion.terms["classification"] == loss
    for truth in ([target([9, 9, 40, 50], [30, 8, 70, 30]), target()], [target(), target()]):
        detector.zero_grad()
        losses = detector(PICTURES, truth)
        assert all(bool(value.isfinite()) for value in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
        assert all(bool(p.grad.isfinite().all()) for p in detector.parameters() if p.grad is not None)
    save(detector, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.criterion.terms["classification"] == loss
    with torch.no_grad():
        for found, expected in zip(loaded(PICTURES), detector.eval()(PICTURES), strict=True):
            assert torch.equal(found["scores"], expected["scores"])


def test_a_recipe_names_the_loss(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("builder: retinanet\narguments: {classification: {type: FocalLoss, gamma: 1.0}}\n")
    recipe = override(from_yaml(path), {"arguments.classification": "{type: FocalStarLoss, beta: 0.5}"})
    detector = built("retinanet", classification=recipe.arguments["classification"])
    assert store_argument(detector.criterion.terms["classification"])["beta"] == 0.5
