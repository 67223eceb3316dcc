"""From a list of images to the tensor that a network takes, and boxes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.ops.boxes import clip_boxes
from singleshot.structures import Detections, ImageBatch, Targets

_NAMED = {
    # torchvision's ImageNet weights: RGB, 0..1.
    "imagenet_rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb"),
    # The authors' VGG-16: BGR, 0..255, means 104, 117, 123 in that order, no division (reference: section 1.2).
    "caffe_bgr": ((123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255), "bgr"),
}


@dataclass(frozen=True)
class Pixels:
    """How pixels are normalised: (value - mean) / std on RGB in 0..1, then the order that the weights expect."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    order: str = "rgb"  # order in which the network takes the channels; mean and std are always given as RGB

    @classmethod
    def named(cls, choice: str | Sequence[object] | Pixels) -> Pixels:
        """`imagenet_rgb`, `caffe_bgr`, or (mean, std, order) with three numbers each, RGB, on values in 0..1."""
        if isinstance(choice, Pixels):
            return choice
        if isinstance(choice, str):
            if choice not in _NAMED:
                raise ValueError(f"pixels must be one of {', '.join(_NAMED)} or (mean, std, order), got {choice!r}")
            return cls(*_NAMED[choice])
        try:
            mean, std, order = choice
            mean, std = (tuple(float(number) for number in numbers) for numbers in (mean, std))  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise ValueError(f"pixels must be a name or (mean, std, order), got {choice!r}") from None
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or order not in ("rgb", "bgr"):
            raise ValueError(f"pixels must be three means, three positive stds and 'rgb' or 'bgr', got {choice!r}")
        return cls(mean, std, str(order))


@dataclass(frozen=True)
class Stretch:
    """Resizes every image to one size, whatever its shape (the authors' WARP; bilinear, as in their tests)."""

    size: tuple[int, int]  # (height, width)
    pixels: Pixels = Pixels()

    def __call__(self, images: Sequence[Tensor], device: torch.device | str) -> ImageBatch:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""
        resized = torch.stack([self._resize(image.to(device, non_blocking=True)) for image in images])
        original = torch.tensor([image.shape[-2:] for image in images], dtype=torch.float32, device=device)
        scales = torch.tensor(self.size, dtype=torch.float32, device=device).flip(0) / original.flip(1)
        return ImageBatch(self.normalise(resized), original, scales)

    def _resize(self, image: Tensor) -> Tensor:
        # Always float32 in 0..1 from here on: the images of one batch may be of different kinds.
        image = _unit(image)
        if image.shape[-2:] == torch.Size(self.size):
            return image
        resized: Tensor = F.interpolate(image[None], self.size, mode="bilinear", align_corners=False)[0]
        return resized

    def normalise(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] RGB, float in 0..1 or uint8 -> float32 in the network's units and channel order."""
        mean = images.new_tensor(self.pixels.mean, dtype=torch.float32)[:, None, None]
        std = images.new_tensor(self.pixels.std, dtype=torch.float32)[:, None, None]
        normalised = (_unit(images) - mean) / std
        return normalised.flip(1) if self.pixels.order == "bgr" else normalised

    def targets(self, targets: Targets, batch: ImageBatch) -> Targets:
        """Boxes of the original images -> boxes of the network's input."""
        return Targets(targets.boxes * batch.scales.repeat(1, 2)[:, None], targets.labels, targets.crowd)

    def restore(self, detections: Detections, batch: ImageBatch) -> Detections:
        """Boxes of the network's input -> boxes of the original images, cut at their borders."""
        boxes = detections.boxes / batch.scales.repeat(1, 2)[:, None]
        height, width = batch.sizes[:, 0, None, None], batch.sizes[:, 1, None, None]
        return Detections(clip_boxes(boxes, height, width), detections.scores, detections.labels)


def _unit(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float() / 255
