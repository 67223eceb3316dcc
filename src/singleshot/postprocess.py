"""From raw predictions to findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.losses.classification import ClassificationLoss
from singleshot.ops.nms import nms_sorted
from singleshot.structures import Anchors, Detections, Predictions

Scores = Callable[[Predictions], Tensor]


@dataclass(frozen=True)
class ClassScores:
    """The probability of the class is the score: predictions -> [B, A, K]."""

    classification: ClassificationLoss
    key: str = "class_logits"

    def __call__(self, predictions: Predictions) -> Tensor:
        return self.classification.probabilities(predictions[self.key])


@dataclass(frozen=True)
class PerClassPostprocess:
    """SSD's inference (paper section 3.7, authors' DetectionOutput layer).

    For each class: scores above `threshold`, the best `candidates`, greedy NMS with `iou`; then the best `detections`
    of the image over all classes. All images and classes at once, of fixed shape.
    """

    coder: DeltaCoder
    scores: Scores
    threshold: float = 0.01  # paper section 3.7
    candidates: int = 400  # authors' script, per class
    iou: float = 0.45  # paper section 3.7
    detections: int = 200  # paper section 3.7

    def __call__(self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None) -> Detections:
        """Predictions of a batch -> Detections [B, detections] in pixels of the network's input.

        `keep` [B, A] bool: anchors outside of it find nothing.
        """
        boxes = self.coder.decode(predictions["box_deltas"], anchors.boxes)  # [B, A, 4]
        sound = boxes.isfinite().all(-1)
        if keep is not None:
            sound = sound & keep
        scores = self.scores(predictions)  # [B, A, K]
        # A score that is NaN fails both comparisons and so becomes 0.
        scores = torch.where((scores > self.threshold) & sound[..., None], scores, 0.0).transpose(1, 2)  # [B, K, A]
        batch, _, num_anchors = scores.shape
        best, index = scores.topk(min(self._candidates(scores), num_anchors))  # [B, K, N]
        number = best.shape[-1]
        chosen = boxes.nan_to_num().gather(1, index.reshape(batch, -1, 1).expand(-1, -1, 4))  # [B, K * N, 4]
        alive = nms_sorted(chosen.reshape(-1, number, 4), (best > 0).reshape(-1, number), self.iou)
        best = torch.where(alive.reshape(batch, -1), best.reshape(batch, -1), 0.0)  # [B, K * N]
        final, order = best.topk(min(self.detections, best.shape[1]))
        return Detections(chosen.gather(1, order[..., None].expand(-1, -1, 4)), final, order // number)

    def _candidates(self, scores: Tensor) -> int:
        # Most classes have few scores above the threshold. Where waiting for the device is allowed (not while a graph
        # is traced), the suppression is only as large as the fullest class needs; the result is the same.
        if torch.compiler.is_compiling() or torch.compiler.is_exporting() or not scores.numel():
            return self.candidates
        return max(1, min(self.candidates, int((scores > 0).sum(-1).max())))
