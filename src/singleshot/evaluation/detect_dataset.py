"""Run a detector over a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from singleshot.data.dataset import Dataset
from singleshot.data.loader import image_loader
from singleshot.errors import UserError
from singleshot.eval_mode import evaluating
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import evaluate
from singleshot.evaluation.sweep import Sweep, Value

Detect = Callable[[list[Tensor]], Any]
"""Images, uint8 [3, H, W] RGB each, to one {"boxes", "scores", "labels"} per image, in pixels of that image."""


class TwoHalves(Protocol):
    """A detector that can be called in two halves, so that the second one may be repeated."""

    def raw(self, images: Sequence[Tensor]) -> Any:
        """What the network says about a batch."""

    def detections(self, raw: Any, postprocess: Any = None) -> list[dict[str, Tensor]]:
        """The detections that a post-processing makes of it."""


def detect_dataset(
    detector: Detect,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageDetections]:
    """Detect in every image of a dataset, one entry per record, in pixels of the original image.

    A module is put in evaluation mode for it and put back. `progress` is called with (images done, images) at the
    start and after every batch.

    Raises `UserError` naming the first images that are missing, before anything is run, and an image that cannot be
    read.
    """
    missing = [record.path for record in dataset.records if not record.path.is_file()]
    if missing:
        raise UserError(
            f"{dataset.root}: {len(missing)} of {len(dataset)} images of split {dataset.split!r} are missing, "
            f"such as {', '.join(str(path) for path in missing[:3])}; restore them or take them out of the split"
        )
    result: list[ImageDetections] = []
    if progress is not None:
        progress(0, len(dataset))
    with evaluating(detector), torch.inference_mode():
        paths = [record.path for record in dataset.records]
        for images in image_loader(paths, batch_size=batch_size, workers=workers):
            result += [_to_arrays(found) for found in detector(images)]
            if progress is not None:
                progress(len(result), len(dataset))
    return result


def detect_with_each(
    detector: TwoHalves,
    dataset: Dataset,
    postprocesses: Sequence[Any],
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[ImageDetections]]:
    """Detect in every image with several post-processings: for each of them what `detect_dataset` would give with it.

    The network runs once. Its predictions are kept for one batch only, whatever the size of the dataset.

    Raises `UserError` as `detect_dataset` does.
    """
    results: list[list[ImageDetections]] = [[] for _ in postprocesses]

    def several(images: list[Tensor]) -> list[dict[str, Tensor]]:
        raw = detector.raw(images)
        for result, postprocess in zip(results, postprocesses, strict=True):
            result += [_to_arrays(found) for found in detector.detections(raw, postprocess)]
        return [_NOTHING] * len(images)

    with evaluating(detector):
        detect_dataset(several, dataset, batch_size=batch_size, workers=workers, progress=progress)
    return results


def sweep(
    detector: TwoHalves,
    dataset: Dataset,
    name: str,
    postprocesses: Mapping[Value, Any],
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Measure one pass of the network for several values of one number of the post-processing.

    `name` is that of the number, `postprocesses` a post-processing for each of its values (see
    `singleshot.postprocess.vary`). With "iou_alpha" it is Tables 3 and 4 of the IoU-aware paper.

    Raises `UserError` as `detect_dataset` and `evaluate` do.
    """
    sizes = {"batch_size": batch_size, "workers": workers}
    found = detect_with_each(detector, dataset, list(postprocesses.values()), **sizes, progress=progress)
    return Sweep(name, tuple(postprocesses), tuple(evaluate(dataset, detections) for detections in found))


_NOTHING = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}


def _to_arrays(found: Mapping[str, Tensor]) -> ImageDetections:
    boxes, scores, labels = (found[name].detach().cpu() for name in ("boxes", "scores", "labels"))
    return ImageDetections(
        boxes.double().numpy().reshape(-1, 4), scores.double().numpy(), labels.numpy().astype(np.int64)
    )
