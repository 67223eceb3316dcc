"""The views of multi-scale testing, and how their detections are merged. Plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from singleshot.errors import UserError
from singleshot.ranges import MOST_PIXELS, check_ranges, within

Merge = Literal["vote", "soft_vote", "nms"]

_SIDE = within(least=1, most=MOST_PIXELS)
_LENGTH = within(above=0, most=10**9)
_NUMBER = within(least=1, most=10**6)


@dataclass(frozen=True)
class View:
    """The size of an image for one pass of the network, and which of the boxes found there count.

    Exactly one of these three sets the size:
    - `side`: one number of pixels, by the detector's own rule. A detector that stretches images gets a square. For
      others it is the side that the rule sets, and the limit on the other side changes in proportion.
    - `size`: (height, width). The image is stretched to it. With `turn` the longer of the two lies along the image's
      longer side (along the height if the image is square).
    - `scale`: a factor of the detector's own size.

    Boxes count by their sides x2 - x1 and y2 - y1, in pixels of the original image. None: all count.
    """

    side: int | None = field(default=None, metadata=_SIDE)
    size: tuple[int, ...] | None = field(default=None, metadata=_SIDE)
    turn: bool = False
    scale: float | None = field(default=None, metadata=within(above=0, most=20))
    long_side_above: float | None = field(default=None, metadata=_LENGTH)  # boxes count whose longer side is longer
    short_side_below: float | None = field(default=None, metadata=_LENGTH)  # boxes count whose shorter side is shorter

    def __post_init__(self) -> None:
        given = [name for name in ("side", "size", "scale") if getattr(self, name) is not None]
        if len(given) != 1:
            came = " and ".join(given) or "none of them"
            raise UserError(f"a view needs exactly one of side, size and scale to set the image's size; got {came}")
        if self.side is not None and not _is_whole(self.side):
            raise UserError(f"side: expected a whole number of pixels, 1 or more, got {self.side!r}")
        if self.size is not None and not (len(self.size) == 2 and all(_is_whole(side) for side in self.size)):
            raise UserError(f"size: expected height and width in pixels, such as [320, 192], got {list(self.size)}")
        if self.turn and self.size is None:
            raise UserError("turn needs size: it exchanges the two sides for wide images; give size, or leave turn out")
        for name in ("scale", "long_side_above", "short_side_below"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}: expected a number above 0, got {value!r}")
        check_ranges(self)

    def __str__(self) -> str:
        if self.side is not None:
            return f"side {self.side}"
        if self.size is not None:
            return f"size {self.size[0]}x{self.size[1]}{', turned with the image' if self.turn else ''}"
        return f"scale {self.scale:g}"


@dataclass(frozen=True)
class MultiScale:
    """Multi-scale testing: every view, plain and (with `mirror`) mirrored; then the boxes of each class are merged.

    `merge` is "vote", "soft_vote" (see `singleshot.ops.voting`) or "nms" (the best box of each cluster). Boxes with an
    IoU of at least `iou` belong together. The result of a single pass stays unchanged. The other numbers are for the
    post-processing of each pass; None: the detector's own. With `nms` the suppression is greedy, even if the detector's
    own is soft. `threshold` is also the lowest score that a soft vote keeps.
    """

    views: tuple[View, ...]
    name: str = "multi-scale"  # for messages
    mirror: bool = True
    merge: Merge = "vote"
    iou: float = 0.45
    threshold: float | None = None
    candidates: int | None = field(default=None, metadata=_NUMBER)
    nms: float | None = None
    detections: int | None = field(default=None, metadata=_NUMBER)

    def __post_init__(self) -> None:
        if not self.views:
            raise UserError("views: expected at least one view, such as {scale: 1}")
        if self.merge not in get_args(Merge):
            raise UserError(f"merge: expected one of {', '.join(get_args(Merge))}, got {self.merge!r}")
        if not 0 < self.iou <= 1:
            raise UserError(f"iou: expected a number above 0 and at most 1, got {self.iou!r}")
        for name in ("threshold", "nms"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name}: expected a number from 0 to 1, got {value!r}")
        for name in ("candidates", "detections"):
            value = getattr(self, name)
            if value is not None and not _is_whole(value):
                raise UserError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        check_ranges(self)

    @property
    def passes(self) -> int:
        """How many times the network sees each image."""
        return len(self.views) * (1 + self.mirror)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
