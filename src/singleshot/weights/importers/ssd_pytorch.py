"""Imports weights of ssd.pytorch (amdegroot) into our SSD: its SSD300 on VGG-16."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from singleshot.errors import UserError
from singleshot.weights.importers import vgg_ports
from singleshot.weights.importers.class_names import after_background
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.rows import background_last

TITLE = "ssd.pytorch's SSD300"

_CLASS_BIAS, _BOX_BIAS = "conf.0.bias", "loc.0.bias"
_TELLING = ("vgg.0.weight", "L2Norm.weight", "extras.0.weight", _CLASS_BIAS, _BOX_BIAS)
_LISTS = {"class_logits": "conf", "box_deltas": "loc"}


def recognises(source: Source) -> bool:
    """Its names of the trunk, of the scale, and of both lists of heads."""
    return all(key in source.shapes for key in _TELLING)


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd` with that project's default boxes, pixels and suppression."""
    if "extras.8.weight" in source.shapes:
        raise UserError(
            "these weights have the layers of 512 pixels, which ssd.pytorch does not have: forks of it do, each with "
            "default boxes of its own. Only its SSD300 can be imported"
        )
    outputs = _outputs(source)
    return "ssd", {
        **after_background(outputs),
        "pixels": vgg_ports.PIXELS,
        "box_sizes": "voc" if outputs == 21 else "coco",  # its network takes COCO's table for any other number
        "clip": "centres_and_sizes",
        "threshold": 0.01,
        "nms": 0.45,
        "candidates": 200,
        "detections": 200,
    }


def rename(key: str, source: Source) -> list[str]:
    """That project's name of an entry of our state dict."""
    part, *path, kind = key.split(".")
    if part == "head":  # levels.LEVEL.BRANCH.predict.OUTPUT
        return [f"{_LISTS[path[-1]]}.{path[1]}.{kind}"]
    if path[0] == "extras":
        return [f"extras.{vgg_ports.extra_layer(path[1:])}.{kind}"]
    return ["L2Norm.weight" if path[1] == "scales" else f"vgg.{vgg_ports.trunk_layer(path[1:])}.{kind}"]


def unneeded(key: str) -> bool:
    """Never: every tensor of its files is used here."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background is the first class there, and the last one here."""
    background_last(state, "class_logits", _outputs(source))


def _outputs(source: Source) -> int:
    return vgg_ports.outputs(source, _CLASS_BIAS, _BOX_BIAS, boxes=4)
