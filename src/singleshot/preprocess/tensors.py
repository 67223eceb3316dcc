"""Preparation on tensors, for detectors, also in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.ops.boxes import box_area, clip_boxes
from singleshot.preprocess.pixels import Pixels
from singleshot.preprocess.preprocess import Layout, Size
from singleshot.structures import Detections, ImageBatch, Targets


def prepared(rule: Layout, images: Sequence[Tensor], device: torch.device | str, training: bool) -> ImageBatch:
    """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""
    original = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    sizes, (height, width) = rule.layout(original, training)
    resized = [_resized(image.to(device, non_blocking=True), size) for image, size in zip(images, sizes, strict=True)]
    if all(size == (height, width) for size in sizes):
        pixels = torch.stack(resized)
    else:
        mean = torch.tensor(rule.pixels.mean, dtype=torch.float32, device=device)[:, None, None]
        pixels = mean.expand(len(images), -1, height, width).clone(memory_format=torch.contiguous_format)
        for place, image, (h, w) in zip(pixels, resized, sizes, strict=True):
            place[:, :h, :w] = image
    before, after = (torch.tensor(shapes, dtype=torch.float32, device=device) for shapes in (original, sizes))
    return ImageBatch(normalised(rule.pixels, pixels), before, (after / before).flip(1))


def normalised(pixels: Pixels, images: Tensor) -> Tensor:
    """[..., 3, H, W] RGB, float in 0..1 or uint8 -> float32 in the network's units and channel order."""
    mean = images.new_tensor(pixels.mean, dtype=torch.float32)[:, None, None]
    std = images.new_tensor(pixels.std, dtype=torch.float32)[:, None, None]
    values = (_unit(images) - mean) / std
    return values.flip(-3) if pixels.order == "bgr" else values


def scaled_targets(targets: Targets, batch: ImageBatch) -> Targets:
    """Boxes of the original images -> boxes of the network's input."""
    return Targets(targets.boxes * batch.scales.repeat(1, 2)[:, None], targets.labels, targets.crowd)


def restored(detections: Detections, batch: ImageBatch, *, padded: bool) -> Detections:
    """Boxes of the network's input -> boxes of the original images, clipped to them.

    `padded`: images may be smaller than the input. A box in the padding has no area when clipped; its score becomes 0.
    """
    boxes = detections.boxes / batch.scales.repeat(1, 2)[:, None]
    height, width = batch.sizes[:, 0, None, None], batch.sizes[:, 1, None, None]
    boxes = clip_boxes(boxes, height, width)
    scores = detections.scores.where(box_area(boxes) > 0, 0) if padded else detections.scores
    return Detections(boxes, scores, detections.labels)


def _resized(image: Tensor, size: Size) -> Tensor:
    # From here on always float32 in 0..1: the images of one batch may have different types.
    image = _unit(image)
    if image.shape[-2:] == torch.Size(size):
        return image
    resized: Tensor = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    return resized


def _unit(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float() / 255
