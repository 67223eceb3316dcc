"""A detector whose findings are known, and pictures for it to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn


class Fake(nn.Module):
    """Finds three things in every image: scores 0.9, 0.5, 0.2, classes 2, 0, 1, the first as large as the image."""

    class_names = ("cat", "dog", "Vögel")
    category_ids = (7, "b", 90)

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(1)
        self.batches: list[int] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert not self.training
        assert all(image.dtype == torch.uint8 and image.shape[0] == 3 for image in images)
        self.batches.append(len(images))
        return [self.find(*image.shape[-2:]) for image in images]

    def find(self, height: int, width: int) -> dict[str, Tensor]:
        boxes = torch.tensor([[0, 0, width, height], [1, 2, 5.5, 8], [3, 3, 9, 4]], dtype=torch.float32)
        return {"boxes": boxes, "scores": torch.tensor([0.9, 0.5, 0.2]), "labels": torch.tensor([2, 0, 1])}


@pytest.fixture
def fake() -> Fake:
    detector = Fake().train()
    detector.frozen.eval()
    return detector


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Draws an image of (height, width) at a path below the test's folder; its red value tells it from others."""

    def make(name: str, size: tuple[int, int] = (24, 32), red: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), (red, 128, 128), np.uint8)).save(path)
        return path

    return make
