"""What the PyTorch ports of SSD and RefineDet share that grew out of ssd.pytorch.

They number the layers of VGG-16 in one flat list: 0 to 29 the convolutions with their ReLUs and pools, 31 fc6, 33 fc7.
So does the file of ImageNet weights that they all start from (`vgg16_reducedfc.pth`). The extra levels are a flat list
of convolutions, two for each level. Each map has a layer for the classes and one for the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

from singleshot.errors import UserError
from singleshot.source import Source

PIXELS = [[123 / 255, 117 / 255, 104 / 255], [1 / 255, 1 / 255, 1 / 255], "rgb"]
"""The means of the authors' Caffe code, subtracted from RGB: their weights were for BGR, but the ports train on RGB."""

_FULL = {"fc6": 31, "fc7": 33}


def trunk_layer(path: Sequence[str]) -> int:
    """The number of a layer of our VGG-16 in the flat list: `path` is `features.N`, `fc6.0` or `fc7.0`."""
    return int(path[1]) if path[0] == "features" else _FULL[path[0]]


def extra_layer(path: Sequence[str]) -> int:
    """The number of a convolution of our extra levels in the flat list: `path` is `LEVEL.FIRST_OR_SECOND.0`."""
    return 2 * int(path[0]) + int(path[1])


def outputs(source: Source, class_bias: str, box_bias: str, boxes: int) -> int:
    """How many classes a box has, with the background; from a map with `boxes` boxes in each cell.

    Raises:
        UserError: the layers are for another number of boxes.
    """
    rows, deltas = source.shapes[class_bias][0], source.shapes[box_bias][0]
    if deltas != 4 * boxes or rows % boxes or rows < 2 * boxes:
        raise UserError(
            f"{box_bias} has {deltas} numbers and {class_bias} {rows}; expected {4 * boxes} and a multiple of {boxes}: "
            "a model with other default boxes cannot be imported"
        )
    return rows // boxes
