"""Preparation on arrays, without PyTorch, for exported detectors; the one resizing of 8-bit images for all engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from singleshot.errors import UserError
from singleshot.preprocess.pixels import Pixels
from singleshot.preprocess.preprocess import Layout, Size

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Picture = Bytes | Floats


@dataclass(frozen=True)
class ArrayBatch:
    """Images of any size as one array that an exported network takes."""

    pixels: NDArray[Any]  # uint8 [B, H, W, 3] RGB (`arranged`), or float32 [B, 3, H, W], normalised (`prepared`)
    sizes: Floats  # [B, 2] (height, width) of the original images
    scales: Floats  # [B, 2] (x, y): pixels of the network's input per original pixel
    limits: Floats  # [B, 2] (height, width) of each image within the input; the rest is padding


def arranged(rule: Layout, pictures: Sequence[Picture], canvas: Size | None = None) -> ArrayBatch:
    """Pictures [H, W, 3] RGB, uint8 or float in 0..1, of any sizes -> ArrayBatch of 8-bit pixels at the input's size.

    The network normalises them itself; what lies beyond `limits` is padding, and 0 here. Float pictures are resized as
    floats and then rounded to 8 bits. `canvas`: (height, width) of the input of a graph with a fixed size; None: the
    size from the rule.

    Raises `UserError` for a picture that the rule makes larger than the canvas.
    """
    sizes, (height, width), numbers = _layout(rule, pictures, canvas)
    pixels = stacked([to_bytes(resized(one, size)) for one, size in zip(pictures, sizes, strict=True)], (height, width))
    return ArrayBatch(pixels, *numbers)


def prepared(rule: Layout, pictures: Sequence[Picture], canvas: Size | None = None) -> ArrayBatch:
    """As `arranged`, but normalised, float32 [B, 3, H, W], for graphs that take such pixels. The padding is 0."""
    sizes, (height, width), numbers = _layout(rule, pictures, canvas)
    pixels = np.zeros((len(pictures), 3, height, width), np.float32)
    for place, picture, size in zip(pixels, pictures, sizes, strict=True):
        place[:, : size[0], : size[1]] = _normalised(rule.pixels, resized(picture, size)).transpose(2, 0, 1)
    return ArrayBatch(pixels, *numbers)


def resized(picture: Picture, size: Size) -> Picture:
    """A picture [H, W, 3] at another (height, width), in its own type, bilinear: pixel centres at halves.

    An 8-bit picture stays one: this is the one resizing of such pictures on the CPU, whatever runs the network.
    """
    if picture.shape[:2] == size:
        return picture
    values = picture if picture.dtype == np.uint8 else picture.astype(np.float32, copy=False)
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def stacked(pictures: Sequence[Bytes], canvas: Size) -> Bytes:
    """Pictures [h, w, 3], each at the top left of a canvas (height, width): [B, H, W, 3], 0 beside them."""
    if len(pictures) == 1 and pictures[0].shape[:2] == canvas:
        return np.ascontiguousarray(pictures[0])[None]
    whole = all(picture.shape[:2] == canvas for picture in pictures)
    pixels = (np.empty if whole else np.zeros)((len(pictures), *canvas, 3), np.uint8)
    for place, picture in zip(pixels, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture
    return pixels


def to_bytes(picture: Picture) -> Bytes:
    """A picture of uint8, or of floats in 0..1, as uint8."""
    if picture.dtype == np.uint8:
        return picture  # type: ignore[return-value]
    return (picture.clip(0, 1) * np.float32(255)).round().astype(np.uint8)


def _layout(
    rule: Layout, pictures: Sequence[Picture], canvas: Size | None
) -> tuple[list[Size], Size, tuple[Floats, Floats, Floats]]:
    """The size that each picture gets, that of the input, and the `sizes`, `scales` and `limits` of a batch."""
    original = [(int(picture.shape[0]), int(picture.shape[1])) for picture in pictures]
    sizes, wanted = rule.layout(original)
    height, width = canvas or wanted
    for (h, w), (before_h, before_w) in zip(sizes, original, strict=True):
        if h > height or w > width:
            raise UserError(
                f"an image of {before_h}x{before_w} (height x width) becomes {h}x{w}, and this model takes "
                f"{height}x{width}; export the model for a size in which both portraits and landscapes fit"
            )
    before, after = np.asarray(original, np.float32), np.asarray(sizes, np.float32)
    scales = np.ascontiguousarray((after / before)[:, ::-1])
    return sizes, (height, width), (before, scales, before * scales[:, ::-1])


def _normalised(pixels: Pixels, picture: Picture) -> Floats:
    values: Floats = picture.astype(np.float32)
    if picture.dtype == np.uint8:
        values = values / np.float32(255)
    mean, std = (np.asarray(numbers, np.float32) for numbers in (pixels.mean, pixels.std))
    values = (values - mean) / std
    return values[..., ::-1] if pixels.order == "bgr" else values


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
