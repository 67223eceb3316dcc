"""The names of layers in the Caffe files of VGG-16's and ResNet's authors, for the keys of the backbones here.

The files of SSD, RefineDet and many others keep these names for their trunks.
"""

from __future__ import annotations

import re

# Convolutions of each block of VGG-16, by their places in torchvision's flat list.
_VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_VGG_LAYERS = {
    str(place): f"conv{block}_{number}"
    for block, places in enumerate(_VGG, 1)
    for number, place in enumerate(places, 1)
}
_BRANCHES = {"1": "branch2a", "2": "branch2b", "3": "branch2c"}
_STAGE = re.compile(r"layer(\d)\.(\d+)\.(.+)")
_PART = re.compile(r"(conv|bn)([123])\.(.+)|downsample\.([01])\.(.+)")


def vgg16(key: str) -> str:
    """The name of an entry of `VGG16`'s state dict: "features.0.weight" is "conv1_1.weight"."""
    group, _, rest = key.partition(".")
    layer, _, kind = rest.rpartition(".")
    if group == "features" and layer in _VGG_LAYERS:
        return f"{_VGG_LAYERS[layer]}.{kind}"
    if group == "scales":
        return f"{layer}_norm.{kind}"
    return f"{group}.{kind}"  # fc6, fc7


def resnet(key: str, depths: tuple[int, ...]) -> str:
    """The name of an entry of `ResNet`'s state dict. `depths`: blocks of each stage.

    The blocks of a stage are numbered a, b, c, and a, b1, b2 in the long stages of ResNet-101 and ResNet-152.
    """
    if (found := _STAGE.fullmatch(key)) is None:
        module, _, kind = key.partition(".")
        return f"{'conv1' if module == 'conv1' else norm('_conv1', kind)}.{kind}"
    stage, number, part = int(found[1]), int(found[2]), found[3]
    numbered = stage in (2, 3) and depths[2] > 6
    block = "a" if number == 0 else f"b{number}" if numbered else chr(ord("a") + number)
    return bottleneck(part, f"{stage + 1}{block}")


def bottleneck(part: str, block: str) -> str:
    """The name of an entry of a bottleneck: "conv1.weight" of block 2a is "res2a_branch2a.weight"."""
    found = _PART.fullmatch(part)
    if found is None:
        return part
    module, number, kind, shortcut, shortcut_kind = found.groups()
    if shortcut is None:
        branch = f"{block}_{_BRANCHES[number]}"
        return f"res{branch}.{kind}" if module == "conv" else f"{norm(branch, kind)}.{kind}"
    branch = f"{block}_branch1"
    return f"res{branch}.{shortcut_kind}" if shortcut == "0" else f"{norm(branch, shortcut_kind)}.{shortcut_kind}"


def norm(name: str, kind: str) -> str:
    """The layer with one kind of entry of a batch norm, which Caffe has in two layers: bnNAME, then scaleNAME."""
    return f"{'scale' if kind in ('weight', 'bias') else 'bn'}{name}"
