"""A detector as one function of tensors. It is what is exported, and every detection runs through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector


class Whole(nn.Module):
    """Network, refinement, scores, top-k, NMS and voting of a detector, from pixels to boxes.

    It is everything between the pre-processing of images and the way back to their own pixels. `torch.export` takes it
    with a free batch size, and the detector itself runs through it. The input size is free when the detector is called;
    an exported graph has one size.

    `forward(pixels, limits)`: `pixels` [B, 3, H, W] float32, normalised; `limits` [B, 2] float32, the (height, width)
    of each image within the input, which is smaller where a batch is padded.
    Returns boxes [B, D, 4] xyxy in pixels of the input, scores [B, D] (0 where there are no more) and labels [B, D]
    int64, best first.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        detector.anchors_for(detector.image_size, detector.device)  # before tracing: anchors are constants in the graph

    def forward(self, pixels: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, 3, H, W] and limits [B, 2] -> boxes [B, D, 4], scores [B, D], labels [B, D]."""
        return found_in(self.detector, pixels, limits)


def found_in(detector: Detector, pixels: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The computation of `Whole`, which every detection of a detector goes through."""
    predictions, base = detector.predictions(pixels)
    predictions = {name: values.detach() for name, values in predictions.items()}  # detections need no gradient
    anchors, keep = detector.refined(predictions, base)
    found = detector.postprocess(predictions, anchors, keep, limits)
    there = found.scores > 0
    # Rows without a detection are set to 0: what NMS leaves there differs between eager and traced runs.
    return torch.where(there[..., None], found.boxes, 0.0), found.scores, torch.where(there, found.labels, 0)
