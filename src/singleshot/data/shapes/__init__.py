"""A generated dataset of shapes: enough to train and evaluate a detector without a download."""

from __future__ import annotations

from singleshot.data.shapes.draw import CLASS_NAMES, ShapesImage, draw_shapes
from singleshot.data.shapes.write import write_shapes

__all__ = ["CLASS_NAMES", "ShapesImage", "draw_shapes", "write_shapes"]
