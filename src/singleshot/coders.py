"""Encode boxes relative to anchors, and decode them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_LOG_SCALE = math.log(1000 / 16)  # a box is at most 62.5 times its anchor, so exp stays finite (Detectron)
_SMALLEST_SIDE = 1e-3  # pixels; keeps the logarithm of a side finite for boxes without area


@dataclass(frozen=True)
class DeltaCoder:
    """Centre offsets relative to the anchor's size, and log sizes (SSD equation 2; R-CNN's parametrisation).

    The encoded differences are divided by `variances` (Caffe's name). SSD has 0.1 for the centre and 0.2 for the size,
    RetinaNet 1 and 1.
    """

    variances: tuple[float, float] = (0.1, 0.2)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes [..., 4] relative to anchors [..., 4] (broadcast) -> deltas [..., 4] (dx, dy, dw, dh)."""
        centre, size = _centre_size(boxes)
        anchor_centre, anchor_size = _centre_size(anchors)
        offset = (centre - anchor_centre) / anchor_size / self.variances[0]
        scale = (size / anchor_size).log() / self.variances[1]
        return torch.cat([offset, scale], -1)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Deltas [..., 4] of anchors [..., 4] (broadcast) -> boxes [..., 4]; the inverse of `encode`."""
        anchor_centre, anchor_size = _centre_size(anchors)
        centre = anchor_centre + deltas[..., :2] * self.variances[0] * anchor_size
        size = anchor_size * (deltas[..., 2:] * self.variances[1]).clamp(max=_LARGEST_LOG_SCALE).exp()
        return torch.cat([centre - size / 2, centre + size / 2], -1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=_SMALLEST_SIDE)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, size
