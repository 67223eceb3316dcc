"""Preparation on arrays, for exported detectors, without PyTorch. Equal to that on tensors, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from singleshot.errors import UserError
from singleshot.preprocess.preprocess import Layout, Size

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ArrayBatch:
    """Images of any size as one array that an exported network takes."""

    pixels: Floats  # [B, 3, H, W], normalised
    sizes: Floats  # [B, 2] (height, width) of the original images
    scales: Floats  # [B, 2] (x, y): pixels of the network's input per original pixel
    limits: Floats  # [B, 2] (height, width) of each image within the input; the rest is padding


def prepared(
    rule: Layout, images: Sequence[NDArray[np.uint8] | NDArray[np.float32]], canvas: Size | None = None
) -> ArrayBatch:
    """Images [H, W, 3] RGB, uint8 or float in 0..1, of any sizes -> ArrayBatch.

    `canvas`: (height, width) of the input of a graph with a fixed size; None: the size from the rule.

    Raises `UserError` for an image that the rule makes larger than the canvas.
    """
    original = [(int(image.shape[0]), int(image.shape[1])) for image in images]
    sizes, wanted = rule.layout(original)
    height, width = canvas or wanted
    for (h, w), (before_h, before_w) in zip(sizes, original, strict=True):
        if h > height or w > width:
            raise UserError(
                f"an image of {before_h}x{before_w} (height x width) becomes {h}x{w}, and this model takes "
                f"{height}x{width}; export the model for a size in which both portraits and landscapes fit"
            )
    mean, std = (np.asarray(numbers, np.float32) for numbers in (rule.pixels.mean, rule.pixels.std))
    pixels = np.zeros((len(images), 3, height, width), np.float32)  # the mean colour is 0 after normalisation
    for place, image, size in zip(pixels, images, sizes, strict=True):
        values = (_resized(image, size) - mean) / std
        values = values[..., ::-1] if rule.pixels.order == "bgr" else values
        place[:, : size[0], : size[1]] = values.transpose(2, 0, 1)
    before, after = np.asarray(original, np.float32), np.asarray(sizes, np.float32)
    scales = np.ascontiguousarray((after / before)[:, ::-1])
    return ArrayBatch(pixels, before, scales, before * scales[:, ::-1])


def restored(boxes: Floats, scores: Floats, batch: ArrayBatch, *, padded: bool) -> tuple[Floats, Floats]:
    """Boxes [B, D, 4] of the network's input -> boxes of the original images, clipped to them, and scores [B, D].

    `padded`: images may be smaller than the input. A box in the padding has no area when clipped; its score becomes 0.
    """
    boxes = boxes / np.tile(batch.scales, 2)[:, None]
    boxes = np.clip(boxes, np.float32(0), np.tile(batch.sizes[:, ::-1], 2)[:, None])
    if padded:
        sides = boxes[..., 2:] - boxes[..., :2]
        scores = np.where((sides > 0).all(-1), scores, np.float32(0))
    return boxes, scores


def _resized(image: NDArray[np.uint8] | NDArray[np.float32], size: Size) -> Floats:
    values: Floats = image.astype(np.float32)
    if image.dtype == np.uint8:
        values = values / np.float32(255)
    if values.shape[:2] == size:
        return values
    # In 32 bits, as PyTorch's bilinear resizing: both put pixel centres at halves and repeat the border.
    return np.asarray(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.float32)
