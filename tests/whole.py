"""The part of a detector that is exported."""

from __future__ import annotations

from torch import Tensor, nn

from singleshot.detectors.detector import Detector


class Whole(nn.Module):
    """Network and post-processing: what an exported detector is."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        predictions = self.detector.network(pixels)
        anchors, keep = self.detector.refined(predictions, self.detector.anchors_for(self.detector.image_size))
        found = self.detector.postprocess(predictions, anchors, keep)
        return found.boxes, found.scores, found.labels
