"""Large pictures decoded smaller: by how much, so that a network sees as much, and the way back to the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

Size = tuple[int, int]  # (height, width)
Seen = Callable[[Size], Size]
"""The size of an image -> the size to which it is resized for a network."""

FACTORS = (8, 4, 2)  # by which JPEG files can be decoded smaller, in a fraction of the time

B = TypeVar("B")  # an array or a tensor


@dataclass(frozen=True)
class Reduced:
    """How a picture lies in its image: each of its pixels is `factor` x `factor` pixels of it, from the top left."""

    size: Size  # of the image itself
    factor: int = 1

    @property
    def picture(self) -> Size:
        """The size of the picture. The last row and column may reach beyond the image."""
        return _smaller(self.size, self.factor)

    def boxes(self, boxes: B) -> B:
        """Boxes [N, 4] xyxy in pixels of the picture, an array or a tensor -> in pixels of the image, clipped to it."""
        if self.factor == 1:
            return boxes
        found: Any = boxes * self.factor  # type: ignore[operator]  # arrays and tensors have this alike
        for first, side in ((0, self.size[1]), (1, self.size[0])):
            found[..., first::2] = found[..., first::2].clip(0, side)
        return cast(B, found)


def reduced_for(seen: Seen | None, size: Size, *, turned: bool = False) -> Reduced:
    """The smallest picture that a network sees at the same size, and without having to enlarge it.

    `turned`: the file holds the image mirrored or turned. What reaches beyond the image would then not be at its end,
    so only factors are taken that divide both sides. Without `seen` the picture is the whole image.
    """
    if seen is None:
        return Reduced(size)
    wanted = seen(size)
    for factor in FACTORS:
        height, width = _smaller(size, factor)
        if turned and (size[0] % factor or size[1] % factor):
            continue
        if wanted[0] <= height and wanted[1] <= width and seen((height, width)) == wanted:
            return Reduced(size, factor)
    return Reduced(size)


def seen_by(detector: object) -> Seen | None:
    """How a detector sees images, if its class says so by a method `seen_size`; None for all others.

    What wraps a detector may need the whole image, so an attribute that it hands on does not count.
    """
    method = getattr(type(detector), "seen_size", None)
    return None if method is None else partial(method, detector)


def _smaller(size: Size, factor: int) -> Size:
    return -(-size[0] // factor), -(-size[1] // factor)
