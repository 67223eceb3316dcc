"""Imports weights of torchvision's `ssdlite320_mobilenet_v3_large` into our SSD."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from singleshot.weights.importers import vgg_ports
from singleshot.weights.importers.batch_norm import absorb_epsilon, folded
from singleshot.weights.importers.class_names import named_by_id
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.rows import background_last

TITLE = "torchvision's SSDlite320"

_LISTS = {"class_logits": "head.classification_head.module_list", "box_deltas": "head.regression_head.module_list"}
_CLASS_BIAS, _BOX_BIAS = (f"{heads}.0.1.bias" for heads in _LISTS.values())
_LAST = "backbone.features.1.3.0.weight"  # the trunk's last layer
_TELLING = ("backbone.features.0.13.0.weight", _LAST, "backbone.extra.0.0.0.weight", _CLASS_BIAS, _BOX_BIAS)
_SPLIT = 13  # the block that torchvision divides after its expansion, the first map
_EPSILON = 1e-3
_SCALES = [0.2 + 0.75 * level / 5 for level in range(6)] + [1.0]
_ONE_CELL = 3  # the extra level whose map is one cell, where this package has no norm


def recognises(source: Source) -> bool:
    """Torchvision's names of the divided block, of the extra levels, and of both lists of separable heads."""
    return all(key in source.shapes for key in _TELLING)


def prepare(source: Source) -> Source:
    """Without the norms of the map of one cell, which only scale it there."""
    tensors = dict(source.tensors)
    for number in (1, 2):
        layer = f"backbone.extra.{_ONE_CELL}.{number}"
        folded(tensors, f"{layer}.0", f"{layer}.1", _EPSILON)
    return dataclasses.replace(source, tensors=tensors)


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd` with torchvision's trunk, default boxes, pixels and suppression."""
    outputs = _outputs(source)
    ids = list(range(1, outputs))  # torchvision's labels; 0 is the background
    return "ssd", {
        "num_classes": outputs - 1,
        **({"class_names": named_by_id(ids)} if outputs == 91 else {}),
        "category_ids": ids,
        "backbone": "mobilenetv3_large",
        # Torchvision halves the tail's channels unless the trunk begins with ImageNet's weights.
        "backbone_options": {"reduced_tail": source.shapes[_LAST][0] == 480},
        "image_size": 320,
        "pixels": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "rgb"],
        "finest_stride": 16,
        "extra_channels": [512, 256, 256, 128],
        "separable_extras": True,
        "separable_heads": True,
        "activation": "relu6",
        "box_shapes": [_shapes(*_SCALES[level : level + 2]) for level in range(6)],
        "clip": "sizes",
        "clip_before_nms": True,
        "threshold": 0.001,
        "nms": 0.55,
        "candidates": 300,
        "detections": 300,
    }


def _shapes(scale: float, following: float) -> list[list[float]]:
    """The default boxes of a cell: two squares, then each ratio and its inverse."""
    side = math.sqrt(scale * following)
    shapes = [[scale, scale], [side, side]]
    for ratio in (2, 3):
        width, height = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [[width, height], [height, width]]
    return shapes


def rename(key: str, source: Source) -> list[str]:
    """Torchvision's name of an entry of our state dict."""
    part, *path = key.split(".")
    if part == "head":  # levels.LEVEL.BRANCH.before.OUTPUT.LAYER.KIND or levels.LEVEL.BRANCH.predict.OUTPUT.KIND
        place = "0" if path[3] == "before" else "1"
        return [".".join([_LISTS[path[4]], path[1], place, *path[5:]])]
    if path[0] == "extras":
        return [".".join(["backbone.extra", *path[1:]])]
    number, rest = int(path[2]), path[3:]  # backbone.features.NUMBER
    if number < _SPLIT:
        return [".".join(["backbone.features.0", str(number), *rest])]
    if number > _SPLIT:
        return [".".join(["backbone.features.1", str(number - _SPLIT), *rest])]
    layer, *rest = rest[1:]  # block.LAYER
    first = ["backbone.features.0", str(_SPLIT)] if layer == "0" else ["backbone.features.1.0", layer]
    return [".".join([*first, *rest])]


def unneeded(key: str) -> bool:
    """Never: every tensor of torchvision's files is used here."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background is the first class there, and the last one here; extra levels and heads have another epsilon."""
    background_last(state, "class_logits", _outputs(source))
    absorb_epsilon(state, _EPSILON, but="backbone.backbone.")


def _outputs(source: Source) -> int:
    return vgg_ports.outputs(source, _CLASS_BIAS, _BOX_BIAS, boxes=6)
