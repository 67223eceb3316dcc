"""Which ResNet a file holds: the blocks tell."""

from __future__ import annotations

from itertools import count, takewhile

from singleshot.backbones.resnet import DESIGNS, BasicBlock
from singleshot.errors import UserError
from singleshot.source import Source


def design(source: Source, start: str) -> str:
    """The ResNet with these blocks: their number in each stage, and the width and groups of the first.

    `start`: what the names of the trunk begin with, before torchvision's names.

    Raises:
        UserError: it is no ResNet that there is here.
    """
    shapes = source.shapes
    first = shapes.get(f"{start}layer1.0.conv2.weight", ())[:2]
    depths = tuple(
        len(list(takewhile(lambda name: name in shapes, (f"{start}layer{k}.{n}.conv1.weight" for n in count()))))
        for k in range(1, 5)
    )
    basic = f"{start}layer1.0.conv3.weight" not in shapes
    for name, one in DESIGNS.items():
        width = one.groups * one.group_width, one.group_width
        if (one.depths, width, one.block is BasicBlock) == (depths, first, basic):
            return name
    raise UserError(
        f"its backbone has {'-'.join(map(str, depths))} blocks, the first with a convolution of {first or 'no'} "
        f"channels; expected a ResNet or ResNeXt: one of {', '.join(DESIGNS)}"
    )
