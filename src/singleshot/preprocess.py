"""From a list of images to the tensor that a network takes, and boxes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.ops.boxes import box_area, clip_boxes
from singleshot.ops.fit import Fit, ShortSide, ShortSideRange
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
                raise UserError(f"pixels must be one of {', '.join(_NAMED)} or (mean, std, order), got {choice!r}")
            return cls(*_NAMED[choice])
        try:
            mean, std, order = choice
            mean, std = (tuple(float(number) for number in numbers) for numbers in (mean, std))  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise UserError(f"pixels must be a name or (mean, std, order), got {choice!r}") from None
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or order not in ("rgb", "bgr"):
            raise UserError(f"pixels must be three means, three positive stds and 'rgb' or 'bgr', got {choice!r}")
        return cls(mean, std, str(order))

    def normalise(self, images: Tensor) -> Tensor:
        """[..., 3, H, W] RGB, float in 0..1 or uint8 -> float32 in the network's units and channel order."""
        mean = images.new_tensor(self.mean, dtype=torch.float32)[:, None, None]
        std = images.new_tensor(self.std, dtype=torch.float32)[:, None, None]
        normalised = (_unit(images) - mean) / std
        return normalised.flip(-3) if self.order == "bgr" else normalised


class Preprocess(Protocol):
    """What every preparation of images offers."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input; where it follows the image, the usual one."""

    @property
    def pixels(self) -> Pixels:
        """The units and the order of the channels that the network wants."""

    def __call__(self, images: Sequence[Tensor], device: torch.device | str, training: bool = False) -> ImageBatch:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""

    def targets(self, targets: Targets, batch: ImageBatch) -> Targets:
        """Boxes of the original images -> boxes of the network's input."""

    def restore(self, detections: Detections, batch: ImageBatch) -> Detections:
        """Boxes of the network's input -> boxes of the original images, cut at their borders."""


class _ScalesBoxes:
    """Boxes there and back: what all preparations that only scale an image, each axis by itself, have in common."""

    def targets(self, targets: Targets, batch: ImageBatch) -> Targets:
        """Boxes of the original images -> boxes of the network's input."""
        return Targets(targets.boxes * batch.scales.repeat(1, 2)[:, None], targets.labels, targets.crowd)

    def restore(self, detections: Detections, batch: ImageBatch) -> Detections:
        """Boxes of the network's input -> boxes of the original images, cut at their borders."""
        boxes = detections.boxes / batch.scales.repeat(1, 2)[:, None]
        height, width = batch.sizes[:, 0, None, None], batch.sizes[:, 1, None, None]
        return Detections(clip_boxes(boxes, height, width), detections.scores, detections.labels)


@dataclass(frozen=True)
class Stretch(_ScalesBoxes):
    """Resizes every image to one size, whatever its shape (the authors' WARP; bilinear, as in their tests)."""

    size: tuple[int, int]  # (height, width)
    pixels: Pixels = Pixels()

    def __call__(self, images: Sequence[Tensor], device: torch.device | str, training: bool = False) -> ImageBatch:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""
        resized = torch.stack([_resized(image.to(device, non_blocking=True), self.size) for image in images])
        original = torch.tensor([image.shape[-2:] for image in images], dtype=torch.float32, device=device)
        scales = torch.tensor(self.size, dtype=torch.float32, device=device).flip(0) / original.flip(1)
        return ImageBatch(self.pixels.normalise(resized), original, scales)


@dataclass(frozen=True)
class KeepAspect(_ScalesBoxes):
    """Resizes every image by `fit`, which keeps its aspect ratio, and pads the batch to one size (bilinear).

    Images lie at the top left. Right and below there is the mean colour up to the batch's largest height and width,
    rounded up to multiples of `divisor`: exact zeros for the network. A black border would be an edge to it, and one
    whose strength depends on `pixels`.

    `jitter`, (low, high): in training the short side is drawn for each image from the whole numbers low to high, by
    torch's CPU generator. An image whose size is one that such a draw can give is taken as it is. A recipe's transforms
    have made it so, from random numbers of the sample's own (`data/loader.py`), and it must not be resized twice; who
    calls a detector with images that happen to have such a size jitters them himself.
    """

    fit: Fit
    pixels: Pixels = Pixels()
    divisor: int = 32
    jitter: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.divisor, bool) or not isinstance(self.divisor, int) or self.divisor < 1:
            raise UserError(f"divisor: expected a whole number, 1 or more, got {self.divisor!r}")
        _ = self.training_fit  # refuses a range that cannot be

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's input for a landscape image as long as the rule allows."""
        height, width = self.fit.nominal
        return self._padded(height), self._padded(width)

    @property
    def training_fit(self) -> Fit | ShortSideRange:
        """The rule that training images follow."""
        if self.jitter is None:
            return self.fit
        if not isinstance(self.fit, ShortSide):
            raise UserError(f"jitter draws the short side: expected it with a short side only, not with {self.fit}")
        if len(self.jitter) != 2:
            raise UserError(f"jitter: expected two short sides such as [640, 800], got {list(self.jitter)}")
        return ShortSideRange(*self.jitter, longest=self.fit.longest)

    def __call__(self, images: Sequence[Tensor], device: torch.device | str, training: bool = False) -> ImageBatch:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""
        original = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        rule = self.training_fit if training else self.fit
        sizes = [_drawn(rule, height, width) for height, width in original]
        height, width = (self._padded(max(side)) for side in zip(*sizes, strict=True))
        mean = torch.tensor(self.pixels.mean, dtype=torch.float32, device=device)[:, None, None]
        pixels = mean.expand(len(images), -1, height, width).clone(memory_format=torch.contiguous_format)
        for place, image, (h, w) in zip(pixels, images, sizes, strict=True):
            place[:, :h, :w] = _resized(image.to(device, non_blocking=True), (h, w))
        before, after = (torch.tensor(shapes, dtype=torch.float32, device=device) for shapes in (original, sizes))
        return ImageBatch(self.pixels.normalise(pixels), before, (after / before).flip(1))

    def restore(self, detections: Detections, batch: ImageBatch) -> Detections:
        """Boxes of the network's input -> boxes of the original images, cut at their borders.

        What was found in the padding has no area then: its score becomes 0, which marks it as no detection.
        """
        found = super().restore(detections, batch)
        return Detections(found.boxes, found.scores.where(box_area(found.boxes) > 0, 0), found.labels)

    def _padded(self, side: int) -> int:
        return -(-side // self.divisor) * self.divisor


def _drawn(rule: Fit | ShortSideRange, height: int, width: int) -> tuple[int, int]:
    """The size by a rule, with a short side from torch's CPU generator where there is a range."""
    if not isinstance(rule, ShortSideRange):
        return rule(height, width)
    if rule.contains(height, width):
        return height, width
    return rule.at(int(torch.randint(rule.low, rule.high + 1, (), device="cpu")))(height, width)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    # Always float32 in 0..1 from here on: the images of one batch may be of different kinds.
    image = _unit(image)
    if image.shape[-2:] == torch.Size(size):
        return image
    resized: Tensor = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    return resized


def _unit(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float() / 255
