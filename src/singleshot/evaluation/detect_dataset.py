"""Run a detector over a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.deep import range_of
from singleshot.data.frames import dataset_frames
from singleshot.eval_mode import evaluating
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import evaluate
from singleshot.evaluation.sweep import Sweep, Value
from singleshot.reduced import seen_by
from singleshot.stream import Frame, counting, stream

Detect = Callable[[list[Tensor]], Any]
"""Images, each uint8 [3, H, W] RGB -> one {"boxes", "scores", "labels"} per image, in pixels of that image."""


class TwoHalves(Protocol):
    """A detector that can be called in two halves, so that the second half can be repeated."""

    def raw(self, images: Sequence[Tensor]) -> Any:
        """What the network predicts for a batch."""

    def detections(self, raw: Any, postprocess: Any = None) -> list[dict[str, Tensor]]:
        """The detections that a post-processing makes from it."""


def detect_dataset(
    detector: Detect,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageDetections]:
    """Detect objects in every image of a dataset, one entry per record, in pixels of the original image.

    A module runs in evaluation mode; after it, its mode is as before. `progress` is called with (images
    done, images) at the start and after every batch.

    Raises `UserError` if images are missing (before anything is run; it names the first ones), or if an image cannot be
    read.
    """
    with evaluating(detector) as used:

        def look(frames: list[Record]) -> list[ImageDetections]:
            return _in_images(used([frame.tensor() for frame in frames]), frames)

        return _for_each(look, detector, dataset, batch_size, workers, progress)


def detect_with_each(
    detector: TwoHalves,
    dataset: Dataset,
    postprocesses: Sequence[Any],
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[ImageDetections]]:
    """Detect objects in every image with several post-processings; for each, the result is that of `detect_dataset`.

    The network runs once. Its predictions are kept for one batch only, whatever the size of the dataset.

    Raises `UserError` in the cases of `detect_dataset`.
    """
    with evaluating(detector) as used:

        def look(frames: list[Record]) -> list[list[ImageDetections]]:
            """The result of each post-processing, for each image."""
            raw = used.raw([frame.tensor() for frame in frames])
            each = [_in_images(used.detections(raw, one), frames) for one in postprocesses]
            return [[of_one[k] for of_one in each] for k in range(len(frames))]

        found = _for_each(look, detector, dataset, batch_size, workers, progress)
    return [[of_image[k] for of_image in found] for k in range(len(postprocesses))]


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

    `name` is the name of the number. `postprocesses` has a post-processing for each of its values (see
    `singleshot.postprocess.vary`). With "iou_alpha" the result is Tables 3 and 4 of the IoU-aware paper.

    Raises `UserError` in the cases of `detect_dataset` and `evaluate`.
    """
    sizes = {"batch_size": batch_size, "workers": workers}
    found = detect_with_each(detector, dataset, list(postprocesses.values()), **sizes, progress=progress)
    return Sweep(name, tuple(postprocesses), tuple(evaluate(dataset, detections) for detections in found))


R = TypeVar("R")
Record = Frame[ImageRecord]


def _for_each(
    look: Callable[[list[Record]], list[R]],
    detector: object,
    dataset: Dataset,
    batch_size: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[R]:
    """Call `look` with every batch of images, read for the detector; returns its result for each image."""
    deep_range, seen = range_of(detector), seen_by(detector)
    frames = dataset_frames(dataset, workers=workers, ahead=2 * batch_size, deep_range=deep_range, seen=seen)

    def shown(batch: list[Record]) -> list[R]:
        with torch.inference_mode():
            return look(batch)

    after = counting(progress, len(dataset))
    return [found for _, found in stream(frames, shown, batch_size=batch_size, after=after)]


def _in_images(found: Iterable[Mapping[str, Tensor]], frames: list[Record]) -> list[ImageDetections]:
    """What a detector found in the pixels of frames, in pixels of their images."""
    given = list(found)
    if len(given) != len(frames):
        return [to_arrays(one) for one in given]  # the stream refuses it
    return [to_arrays({**one, "boxes": frame.boxes(one["boxes"])}) for one, frame in zip(given, frames, strict=True)]


def to_arrays(found: Mapping[str, Tensor]) -> ImageDetections:
    """Convert a detector's result for an image, {"boxes", "scores", "labels"}, to the form that the metrics take."""
    boxes, scores, labels = (found[name].detach().cpu() for name in ("boxes", "scores", "labels"))
    return ImageDetections(
        boxes.double().numpy().reshape(-1, 4), scores.double().numpy(), labels.numpy().astype(np.int64)
    )
