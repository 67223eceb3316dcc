"""Imports weights of torchvision's `ssd300_vgg16` into our SSD300."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from singleshot.weights.importers import vgg_ports
from singleshot.weights.importers.class_names import named_by_id
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.rows import background_last

TITLE = "torchvision's SSD300"

_LISTS = {"class_logits": "head.classification_head.module_list", "box_deltas": "head.regression_head.module_list"}
_CLASS_BIAS, _BOX_BIAS = (f"{heads}.0.bias" for heads in _LISTS.values())
_TELLING = ("backbone.scale_weight", "backbone.extra.0.7.1.weight", _CLASS_BIAS, _BOX_BIAS)
_CONV5 = 23  # the layers of VGG-16 from pool4 on are the first extra block
_FULL = {31: "7.1", 33: "7.3"}  # of that block


def recognises(source: Source) -> bool:
    """Torchvision's names of the scale, of fc6, and of both lists of heads."""
    return all(key in source.shapes for key in _TELLING)


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd` with torchvision's default boxes, pixels and suppression."""
    outputs = _outputs(source)
    ids = list(range(1, outputs))  # torchvision's labels; 0 is the background
    return "ssd", {
        "num_classes": outputs - 1,
        **({"class_names": named_by_id(ids)} if outputs == 91 else {}),
        "category_ids": ids,
        "pixels": [[0.48235, 0.45882, 0.40784], [1 / 255, 1 / 255, 1 / 255], "rgb"],
        "box_sizes": "coco",
        "clip": "sizes",
        "clip_before_nms": True,
        "threshold": 0.01,
        "nms": 0.45,
        "candidates": 400,
        "detections": 200,
        "frozen_stages": 1,  # torchvision trains the last four of the VGG's five parts
    }


def rename(key: str, source: Source) -> list[str]:
    """Torchvision's name of an entry of our state dict."""
    part, *path, kind = key.split(".")
    if part == "head":  # levels.LEVEL.BRANCH.predict.OUTPUT
        return [f"{_LISTS[path[-1]]}.{path[1]}.{kind}"]
    if path[0] == "extras":  # LEVEL.FIRST_OR_SECOND.0
        return [f"backbone.extra.{int(path[1]) + 1}.{2 * int(path[2])}.{kind}"]
    if path[1] == "scales":
        return ["backbone.scale_weight"]
    layer = vgg_ports.trunk_layer(path[1:])
    if layer < _CONV5:
        return [f"backbone.features.{layer}.{kind}"]
    return [f"backbone.extra.0.{_FULL.get(layer, layer - _CONV5)}.{kind}"]


def unneeded(key: str) -> bool:
    """Never: every tensor of torchvision's files is used here."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background is the first class there, and the last one here."""
    background_last(state, "class_logits", _outputs(source))


def _outputs(source: Source) -> int:
    return vgg_ports.outputs(source, _CLASS_BIAS, _BOX_BIAS, boxes=4)
