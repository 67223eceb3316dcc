"""The protocol of every post-processing, and the order of scores that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.structures import Anchors, Detections, Predictions

Scores = Callable[[Predictions], Tensor]
"""Predictions -> score of each class [B, A, K]. The scores of an anchor depend only on its own predictions."""


class Postprocess(Protocol):
    """What every post-processing offers."""

    @property
    def coder(self) -> DeltaCoder:
        """Decodes boxes from anchors and deltas."""

    @property
    def scores(self) -> Scores:
        """Computes the score of each class, by which anchors are ranked."""

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections in pixels of the network's input.

        `keep` [B, A] bool: the other anchors give no detections. `limits` [B, 2]: (height, width) of each image within
        the input. Some post-processings clip boxes there before NMS.
        """


def best_first(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The `number` highest of non-negative scores [..., N], and their places. Equal scores keep their order.

    `topk` does not define the order of equal scores. The bits of non-negative floats have the same order as the floats.
    So score bits followed by the place, counted backwards, form integers that are all different.
    """
    last = scores.shape[-1] - 1
    backwards = torch.arange(last, -1, -1, device=scores.device)
    keys = (scores.float().view(torch.int32).long() << 32) | backwards
    place = last - (keys.topk(number).values & 0xFFFFFFFF)
    return scores.gather(-1, place), place
