"""Detectors whose weights have 16 (or 64) bits: they detect as with 32, on the CPU too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from singleshot.detectors import Detector, iou_retinanet, refinedet, retinanet, ssd
from singleshot.weights.checkpoint import load, save

PICTURE = torch.randint(0, 256, (3, 60, 80), generator=torch.Generator().manual_seed(0)).byte()
SMALL: dict[str, Any] = {"num_classes": 2, "backbone": "mobilenetv2", "backbone_options": {"width": 0.25}}
PYRAMID: dict[str, Any] = {**SMALL, "image_size": 64, "max_size": 128, "channels": 64, "tower_depth": 1}


def fresh(name: str) -> Detector:
    torch.manual_seed(0)
    made = {
        "ssd": lambda: ssd(**SMALL, image_size=64),
        "refinedet": lambda: refinedet(**{**SMALL, "norm": "frozen"}, image_size=64),
        "retinanet": lambda: retinanet(**PYRAMID, tower_norm="group"),
        "iou_retinanet": lambda: iou_retinanet(**PYRAMID),
    }
    return made[name]().eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["ssd", "retinanet", "iou_retinanet", "refinedet"])
def test_predictions_are_nearly_those_of_32_bits(name: str, dtype: torch.dtype) -> None:
    detector = fresh(name)
    with torch.no_grad():
        before = detector.raw([PICTURE]).predictions
        after = detector.to(dtype).raw([PICTURE]).predictions
    assert detector.dtype == dtype
    for key, value in after.items():
        assert value.dtype == torch.float32
        scale = before[key].abs().max()
        assert (value - before[key]).abs().max() < scale * {torch.float64: 1e-5, torch.float16: 0.03}.get(dtype, 0.15)
    found = detector.predict(PICTURE)
    assert found.boxes.dtype == found.scores.dtype == torch.float32  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_they_are_saved_as_they_are_and_loaded_with_32_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    detector = fresh("ssd").to(dtype)
    save(detector, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.dtype == torch.float32
    assert all(
        torch.equal(value.float(), loaded.state_dict()[key].float()) for key, value in detector.state_dict().items()
    )
