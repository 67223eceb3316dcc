"""The interface of every preparation of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from singleshot.preprocess.pixels import Pixels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from singleshot.structures import Detections, ImageBatch, Targets

Size = tuple[int, int]  # (height, width)


class Layout(Protocol):
    """What both implementations, on tensors and on arrays, need: the sizes of each resized image and of the batch."""

    @property
    def pixels(self) -> Pixels:
        """The normalisation of values."""

    @property
    def padded(self) -> bool:
        """Whether an image may be smaller than the input, with padding around it."""

    def layout(self, images: Sequence[Size], training: bool = False) -> tuple[list[Size], Size]:
        """(height, width) of the images -> (height, width) that each is resized to, and those of the batch.

        Each image is at the top left. The area to its right and below it is filled with the mean colour.
        """


class Preprocess(Layout, Protocol):
    """The interface of every preparation of images, for a detector."""

    @property
    def size(self) -> Size:
        """(height, width) of the network's input; the usual one if it depends on the image."""

    def __call__(self, images: Sequence[Tensor], device: torch.device | str, training: bool = False) -> ImageBatch:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> ImageBatch on the device."""

    def targets(self, targets: Targets, batch: ImageBatch) -> Targets:
        """Boxes of the original images -> boxes of the network's input."""

    def restore(self, detections: Detections, batch: ImageBatch) -> Detections:
        """Boxes of the network's input -> boxes of the original images, clipped to them."""


def by_input_size(rule: Layout, images: Sequence[Size]) -> dict[Size, list[int]]:
    """The (height, width) of the input that each image has alone -> the places of the images that have it.

    Images of one input size make a batch in which none is padded because of another.
    """
    alike: dict[Size, list[int]] = {}
    for place, size in enumerate(images):
        alike.setdefault(rule.layout([size])[1], []).append(place)
    return alike
