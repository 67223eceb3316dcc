"""One pass of a detector's network over a dataset, together with the ground truth of each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.deep import range_of
from singleshot.data.frames import dataset_frames
from singleshot.detectors.detector import Detector, Raw
from singleshot.errors import UserError
from singleshot.eval_mode import evaluating
from singleshot.stream import batches, counting
from singleshot.structures import Matched


@dataclass(frozen=True)
class Visit:
    """What the network predicts for a batch of images, and the records of these images."""

    raw: Raw
    images: list[Tensor]  # uint8 [3, H, W]
    records: tuple[ImageRecord, ...]


def visit_images(
    detector: Detector,
    dataset: Dataset,
    visit: Callable[[Visit], None],
    *,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run the network once over every image, in eval mode and without gradients, and call `visit` with each batch.

    Raises `UserError` when the dataset cannot be analysed: its classes differ from the detector's, an image has no
    annotation, there are no objects, or an image is missing or cannot be read.
    """
    _check(detector, dataset)
    frames = dataset_frames(dataset, workers=workers, ahead=2 * batch_size, deep_range=range_of(detector))
    with evaluating(detector) as used, torch.inference_mode():
        for batch in batches(frames, batch_size, after=counting(progress, len(dataset))):
            images = [frame.tensor() for frame in batch]
            visit(Visit(used.raw(images), images, tuple(frame.source for frame in batch)))
            del batch, images  # before the next ones are read


def match(detector: Detector, seen: Visit, *, drop_difficult: bool = False) -> Matched:
    """What each anchor should predict, with the ground truth as training sees it.

    Boxes are clipped to the image, and boxes without area after that are left out. `drop_difficult` also leaves out
    VOC's difficult objects.
    """
    targets = []
    for image, record in zip(seen.images, seen.records, strict=True):
        height, width = image.shape[-2:]
        boxes = record.boxes.reshape(-1, 4).clip(0, [width, height, width, height])
        keep = (boxes[:, :2] < boxes[:, 2:]).all(1)
        if drop_difficult:
            keep &= ~record.difficult
        targets.append({
            "boxes": torch.from_numpy(boxes[keep].astype(np.float32)),
            "labels": torch.from_numpy(record.labels[keep]),
            "iscrowd": torch.from_numpy(record.crowd[keep]),
        })  # fmt: skip
    return detector.matched(seen.raw, seen.images, targets)


def _check(detector: Detector, dataset: Dataset) -> None:
    where = f"{dataset.root}: split {dataset.split!r}"
    if tuple(dataset.class_names) != tuple(detector.class_names):
        raise UserError(
            f"{where} has the classes {', '.join(dataset.class_names)}, but the detector has "
            f"{', '.join(detector.class_names)}; open the dataset with class_names=detector.class_names"
        )
    unlabelled = [record.name for record in dataset.records if not record.annotated]
    if unlabelled:
        raise UserError(
            f"{where}: {len(unlabelled)} images have no annotation, such as {unlabelled[0]}, but this analysis needs "
            "one for every image; add the annotations, or take the images out of the split"
        )
    if not any((~record.crowd).any() for record in dataset.records):
        raise UserError(f"{where} has no objects, so there is nothing to compare with; choose another split")
