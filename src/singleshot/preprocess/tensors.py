"""Preparation on tensors, for detectors, also in training."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from singleshot.ops.boxes import box_area, clip_boxes
from singleshot.preprocess import arrays
from singleshot.preprocess.pixels import Pixels
from singleshot.preprocess.preprocess import Layout, Size
from singleshot.structures import Detections, ImageBatch, Targets


def prepared(rule: Layout, images: Sequence[Tensor], device: torch.device | str, training: bool) -> ImageBatch:
    """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device.

    8-bit images on the CPU are resized as 8-bit pictures (`arrays.resized`), as for every other engine. All others
    are resized as floats where they are. If all are 8-bit pictures, and nothing is trained, the pixels come with the
    channels last in memory: they lie so in pictures, and the convolutions are faster.
    """
    original = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    sizes, canvas = rule.layout(original, training)
    before, after = (torch.tensor(shapes, dtype=torch.float32, device=device) for shapes in (original, sizes))
    scales = (after / before).flip(1)
    if not training and all(map(_is_picture, images)):
        pictures = [_resized_picture(image, size) for image, size in zip(images, sizes, strict=True)]
        if rule.pixels.order == "bgr":
            pictures = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8) for picture in pictures]
        pixels = _normalised_pictures(rule.pixels, torch.from_numpy(arrays.stacked(pictures, canvas)).to(device))
        for place, size in zip(pixels, sizes, strict=True):
            if size != canvas:
                place[:, size[0] :] = 0
                place[:, :, size[1] :] = 0
        return ImageBatch(pixels, before, scales)
    resized = [_resized(image, size, device) for image, size in zip(images, sizes, strict=True)]
    if all(size == canvas for size in sizes):
        pixels = torch.stack(resized)
    else:
        mean = torch.tensor(rule.pixels.mean, dtype=torch.float32, device=device)[:, None, None]
        pixels = mean.expand(len(images), -1, *canvas).clone(memory_format=torch.contiguous_format)
        for place, image, (h, w) in zip(pixels, resized, sizes, strict=True):
            place[:, :h, :w] = image
    return ImageBatch(normalised(rule.pixels, pixels), before, scales)


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


def _normalised_pictures(pixels: Pixels, pictures: Tensor) -> Tensor:
    """Uint8 [B, H, W, 3], channels in the network's order -> normalised [B, 3, H, W], the channels last in memory."""
    batch, height, width, _ = pictures.shape
    mean, std = (
        torch.tensor(numbers, dtype=torch.float32, device=pictures.device) for numbers in (pixels.mean, pixels.std)
    )
    if pixels.order == "bgr":
        mean, std = mean.flip(0), std.flip(0)
    # A factor and a summand for each value of a row: one pass, in which a processor takes many values at a time.
    factor, summand = (1 / (255 * std)).repeat(width), (-mean / std).repeat(width)
    values = torch.addcmul(summand, pictures.view(batch, height, width * 3).float(), factor)
    return values.view(batch, height, width, 3).permute(0, 3, 1, 2)


def _is_picture(image: Tensor) -> bool:
    """Whether an image is one of 8 bits on the CPU, and nothing is traced."""
    tracing = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return image.dtype == torch.uint8 and image.device.type == "cpu" and not tracing


def _resized_picture(image: Tensor, size: Size) -> NDArray[np.uint8]:
    """An 8-bit image [3, H, W] as a picture [H, W, 3] of (height, width); no copy if it lies so in memory."""
    planes = image.detach().numpy()
    picture = planes.transpose(1, 2, 0)
    if not picture.flags.c_contiguous:
        # OpenCV's copy takes a tenth of the time of NumPy's, but it wants whole planes.
        picture = np.asarray(cv2.merge([np.ascontiguousarray(plane) for plane in planes]))
    return np.asarray(arrays.resized(picture, size), np.uint8)


def _resized(image: Tensor, size: Size, device: torch.device | str) -> Tensor:
    """An image of (height, width), float32 in 0..1: the images of one batch may have different types."""
    if image.shape[-2:] != torch.Size(size) and _is_picture(image):
        image = torch.from_numpy(_resized_picture(image, size)).permute(2, 0, 1)
    image = _unit(image.to(device, non_blocking=True))
    if image.shape[-2:] == torch.Size(size):
        return image
    resized: Tensor = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    return resized


def _unit(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float() / 255
