"""Boxes compared with the objects of an image, in pixels of that image, by the rules of the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from singleshot.data.dataset import ImageRecord
from singleshot.detectors.detector import Detector, Raw
from singleshot.ops.boxes import coverage, pairwise_iou
from singleshot.structures import Detections

_IGNORED = 0.5  # a detection with this overlap with an ignored object is neither right nor wrong
_AT_ONCE = 64  # objects that are compared with the boxes of an image in one step


def best_overlaps(found: Mapping[str, Tensor], record: ImageRecord) -> tuple[Tensor, Tensor, Tensor]:
    """Compare the detections of an image with its objects of the same class.

    `found` has "boxes" [N, 4] and "labels" [N]. Returns three tensors:
    - the IoU of each detection with its best object [N];
    - whether the detection counts [N], which it does not if it finds an ignored object;
    - the IoU of each object with its best detection [G], 0 where there is none. G counts the objects that are neither
      crowd nor difficult.
    """
    boxes, labels = found["boxes"].float(), found["labels"]
    truth = torch.from_numpy(record.boxes.reshape(-1, 4)).to(boxes)
    same = labels[:, None] == torch.from_numpy(record.labels).to(labels)  # [N, all]
    crowd, difficult = (torch.from_numpy(mask).to(labels.device) for mask in (record.crowd, record.difficult))
    ignored = crowd | difficult
    overlap = torch.where(ignored, coverage(boxes, truth), pairwise_iou(boxes, truth)) * same
    iou, aside = overlap[:, ~ignored], overlap[:, ignored]
    best, excused = _largest(iou, 1), _largest(aside, 1)
    return best, (excused < _IGNORED) | (excused <= best), _largest(iou, 0)


def true_iou(detector: Detector, raw: Raw, records: Sequence[ImageRecord]) -> Tensor:
    """IoU of each decoded box, clipped to the image, with its best object of any class, crowds left out: [B, A]."""
    boxes = detector.postprocess.coder.decode(raw.predictions["box_deltas"], raw.anchors.boxes)
    best = boxes.new_zeros(boxes.shape[:2])
    boxes = detector.preprocess.restore(Detections(boxes, best, best.long()), raw.batch).boxes
    for i, record in enumerate(records):
        truth = torch.from_numpy(record.boxes.reshape(-1, 4)[~record.crowd]).to(boxes)
        for part in torch.split(truth, _AT_ONCE) if len(truth) else ():
            best[i] = torch.maximum(best[i], pairwise_iou(boxes[i], part).amax(1))
    return best


def _largest(values: Tensor, dim: int) -> Tensor:
    """The maximum of non-negative values over a dimension; 0 if the dimension is empty."""
    if values.shape[dim] == 0:
        return values.sum(dim)
    return values.amax(dim)
