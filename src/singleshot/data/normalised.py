"""Boxes divided by the size of their image, where pixels are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from singleshot.errors import UserError

# Shares of an image's size are at most 1, but rounding, and a detector's boxes, go a little beyond. In pixels, a
# dataset whose every box ends within the first pixel and a half has no object that anybody could see.
_LARGEST = 1.5


def refuse_normalised(where: str | Path, boxes: NDArray[np.float64]) -> None:
    """Raise UserError where all boxes [N, 4] of a file are divided by the image size.

    Read as pixels they would all lie in the first corner, and every metric would be 0. Whole numbers are left alone:
    a box of one pixel is possible.
    """
    if len(boxes) and (np.abs(boxes) <= _LARGEST).all() and (boxes != np.round(boxes)).any():
        raise UserError(
            f"{where}: all {len(boxes)} boxes lie within the first pixels (the first is {boxes[0].tolist()}): they are "
            "normalised (divided by the image size). Boxes must be in pixels: multiply x by the image's width and y by "
            "its height."
        )
