"""What every post-processing offers, and the order that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.structures import Anchors, Detections, Predictions

Scores = Callable[[Predictions], Tensor]
"""Predictions -> score of each class [B, A, K], each anchor's from its own predictions."""


class Postprocess(Protocol):
    """What every post-processing offers."""

    @property
    def coder(self) -> DeltaCoder:
        """What makes boxes of anchors and their deltas."""

    @property
    def scores(self) -> Scores:
        """What makes the score of each class; anchors are ranked by it."""

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections in pixels of the network's input.

        `keep` [B, A] bool: anchors outside of it find nothing. `limits` [B, 2]: (height, width) of each image within
        the input, for those that cut boxes at its border before they are compared.
        """


def best_first(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The `number` highest of scores [..., N], none of them negative, and their places; equal scores keep their order.

    `topk` leaves the order of equal scores open. The bits of floats that are not negative are ordered as the floats
    are, so with the place below them, counted backwards, they make whole numbers that are all different.
    """
    last = scores.shape[-1] - 1
    backwards = torch.arange(last, -1, -1, device=scores.device)
    keys = (scores.float().view(torch.int32).long() << 32) | backwards
    place = last - (keys.topk(number).values & 0xFFFFFFFF)
    return scores.gather(-1, place), place
