"""Run a detector over a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from singleshot.data.dataset import Dataset
from singleshot.data.loader import image_loader
from singleshot.errors import UserError
from singleshot.evaluation.detections import ImageDetections

Detect = Callable[[list[Tensor]], Any]
"""Images, uint8 [3, H, W] RGB each, to one {"boxes", "scores", "labels"} per image, in pixels of that image."""


def run(
    detector: Detect,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageDetections]:
    """Detect in every image of a dataset, one entry per record, in pixels of the original image.

    A module is put in evaluation mode for it and put back. `progress` is called with (images done, images) after
    every batch.

    Raises `UserError` naming the first images that are missing, before anything is run, and an image that cannot be
    read.
    """
    missing = [record.path for record in dataset.records if not record.path.is_file()]
    if missing:
        raise UserError(
            f"{dataset.root}: {len(missing)} of {len(dataset)} images of split {dataset.split!r} are missing, "
            f"such as {', '.join(str(path) for path in missing[:3])}; restore them or take them out of the split"
        )
    was_training = isinstance(detector, nn.Module) and detector.training
    if isinstance(detector, nn.Module):
        detector.eval()
    result: list[ImageDetections] = []
    try:
        with torch.inference_mode():
            paths = [record.path for record in dataset.records]
            for images in image_loader(paths, batch_size=batch_size, workers=workers):
                result += [_to_arrays(found) for found in detector(images)]
                if progress is not None:
                    progress(len(result), len(dataset))
    finally:
        if isinstance(detector, nn.Module):
            detector.train(was_training)
    return result


def _to_arrays(found: Mapping[str, Tensor]) -> ImageDetections:
    boxes, scores, labels = (found[name].detach().cpu() for name in ("boxes", "scores", "labels"))
    return ImageDetections(
        boxes.double().numpy().reshape(-1, 4), scores.double().numpy(), labels.numpy().astype(np.int64)
    )
