"""Finds boxes that are divided by the image size where pixels are expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from singleshot.errors import UserError

# Normalised numbers are at most 1, but rounding and a detector's boxes go a little beyond. If the numbers were pixels,
# every box of the dataset would end within the first pixel and a half: too small to see.
_LARGEST = 1.5


def refuse_normalised(where: str | Path, boxes: NDArray[np.float64]) -> None:
    """Raise UserError if all boxes [N, 4] of a file are divided by the image size.

    Read as pixels, they would all lie in the top left corner, and every metric would be 0. Whole numbers are accepted,
    since a box of one pixel is possible.
    """
    if len(boxes) and (np.abs(boxes) <= _LARGEST).all() and (boxes != np.round(boxes)).any():
        raise UserError(
            f"{where}: all {len(boxes)} boxes lie within the first pixels (the first is {boxes[0].tolist()}), so they "
            "are normalised (divided by the image size). Boxes must be in pixels: multiply x by the image's width and "
            "y by its height."
        )
