"""The rules by which images are resized for the network: plain data, which can be used with and without PyTorch.

For that reason, the methods that work on tensors import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from singleshot.errors import UserError
from singleshot.ops.fit import Fit, ShortSide, ShortSideRange
from singleshot.preprocess.pixels import IMAGENET, Pixels
from singleshot.preprocess.preprocess import Size
from singleshot.ranges import check_area

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from singleshot.structures import Detections, ImageBatch, Targets


class _Scales:
    """Preparation on tensors and the way back, for all rules that only scale an image, each axis by itself."""

    pixels: Pixels

    @property
    def padded(self) -> bool:
        """Whether an image may be smaller than the input, with padding beside it."""
        raise NotImplementedError

    def layout(self, images: Sequence[Size], training: bool = False) -> tuple[list[Size], Size]:
        """(height, width) of the images -> (height, width) that each is resized to, and those of the batch."""
        raise NotImplementedError

    def __call__(self, images: Sequence[Tensor], device: torch.device | str, training: bool = False) -> ImageBatch:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""
        from singleshot.preprocess.tensors import prepared

        return prepared(self, images, device, training)

    def targets(self, targets: Targets, batch: ImageBatch) -> Targets:
        """Boxes of the original images -> boxes of the network's input."""
        from singleshot.preprocess.tensors import scaled_targets

        return scaled_targets(targets, batch)

    def restore(self, detections: Detections, batch: ImageBatch) -> Detections:
        """Boxes of the network's input -> boxes of the original images, clipped to them.

        A box in the padding has no area after clipping. Its score becomes 0, which means that it is not a detection.
        """
        from singleshot.preprocess.tensors import restored

        return restored(detections, batch, padded=self.padded)


@dataclass(frozen=True)
class Stretch(_Scales):
    """Resizes every image to one size and ignores its aspect ratio (the authors' WARP; bilinear, as in their tests)."""

    size: Size  # (height, width)
    pixels: Pixels = IMAGENET

    def __post_init__(self) -> None:
        check_area(self.size)

    @property
    def padded(self) -> bool:
        """Whether an image may be smaller than the input: never."""
        return False

    def layout(self, images: Sequence[Size], training: bool = False) -> tuple[list[Size], Size]:
        """(height, width) of the images -> (height, width) that each is resized to, and those of the batch."""
        return [self.size] * len(images), self.size


@dataclass(frozen=True)
class KeepAspect(_Scales):
    """Resizes every image by `fit`, which keeps its aspect ratio, and pads the batch to one size (bilinear).

    Images are at the top left. The area to the right and below is filled with the mean colour, up to the batch's
    largest height and width, rounded up to multiples of `divisor`. So the padding is exactly zero for the network. A
    black border would look like an edge, and its strength would depend on `pixels`.

    `jitter`, (low, high): in training the short side of each image is drawn from the whole numbers low to high, by
    torch's CPU generator. An image that already has a size that such a draw can give is not resized. A recipe's
    transforms have given it that size, from the sample's own random numbers (`data/loader.py`), and it must not be
    resized twice. If you call a detector with images that happen to have such a size, jitter them yourself.
    """

    fit: Fit
    pixels: Pixels = IMAGENET
    divisor: int = 32
    jitter: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.divisor, bool) or not isinstance(self.divisor, int) or self.divisor < 1:
            raise UserError(f"divisor: expected a whole number, 1 or more, got {self.divisor!r}")
        _ = self.training_fit  # refuses a range that cannot be
        check_area(self.size)

    @property
    def size(self) -> Size:
        """(height, width) of the network's input for the longest landscape image that the rule allows."""
        height, width = self.fit.nominal
        return self._padded(height), self._padded(width)

    @property
    def padded(self) -> bool:
        """Whether an image may be smaller than the input, with padding beside it."""
        return True

    @property
    def training_fit(self) -> Fit | ShortSideRange:
        """The rule for training images."""
        if self.jitter is None:
            return self.fit
        if not isinstance(self.fit, ShortSide):
            raise UserError(f"jitter draws the short side, so it needs a rule with a short side, got {self.fit}")
        if len(self.jitter) != 2:
            raise UserError(f"jitter: expected two short sides, such as [640, 800], got {list(self.jitter)}")
        return ShortSideRange(*self.jitter, longest=self.fit.longest)

    def layout(self, images: Sequence[Size], training: bool = False) -> tuple[list[Size], Size]:
        """(height, width) of the images -> (height, width) that each is resized to, and those of the batch."""
        rule = self.training_fit if training else self.fit
        sizes = [_drawn(rule, height, width) for height, width in images]
        height, width = (self._padded(max(side)) for side in zip(*sizes, strict=True))
        return sizes, (height, width)

    def _padded(self, side: int) -> int:
        return -(-side // self.divisor) * self.divisor


def _drawn(rule: Fit | ShortSideRange, height: int, width: int) -> Size:
    """The size by a rule; if the short side is a range, it is drawn by torch's CPU generator."""
    if not isinstance(rule, ShortSideRange):
        return rule(height, width)
    if rule.contains(height, width):
        return height, width
    import torch

    return rule.at(int(torch.randint(rule.low, rule.high + 1, (), device="cpu")))(height, width)
