"""Imports weights of luuuyi/RefineDet.PyTorch into our RefineDet on VGG-16, for 320 and 512 pixels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from singleshot.weights.importers import vgg_ports
from singleshot.weights.importers.class_names import after_background
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.rows import background_last

TITLE = "luuuyi's RefineDet.PyTorch"

_CLASS_BIAS, _BOX_BIAS = "odm_conf.0.bias", "odm_loc.0.bias"
_TELLING = ("vgg.0.weight", "conv4_3_L2Norm.weight", "arm_loc.0.bias", "tcb0.0.weight", _CLASS_BIAS, _BOX_BIAS)
_LISTS = {
    "anchor_logits": "arm_conf",
    "anchor_deltas": "arm_loc",
    "class_logits": "odm_conf",
    "box_deltas": "odm_loc",
}


def recognises(source: Source) -> bool:
    """Its names of the trunk, of a scale, and of the lists of both modules and of the blocks between them."""
    return all(key in source.shapes for key in _TELLING)


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`refinedet` with that project's pixels and suppression.

    The layers for 320 and for 512 pixels are the same, so a file does not tell its size: 320, unless it is given.
    """
    return "refinedet", {
        **after_background(_outputs(source)),
        "image_size": 320,
        "pixels": vgg_ports.PIXELS,
        "theta": 0.99,
        "threshold": 0.01,
        "nms": 0.45,
        "candidates": 1000,
        "detections": 500,
    }


def rename(key: str, source: Source) -> list[str]:
    """That project's name of an entry of our state dict."""
    part, *path, kind = key.split(".")
    if path[-2] == "predict":  # ....levels.LEVEL.BRANCH.predict.OUTPUT
        return [f"{_LISTS[path[-1]]}.{path[-4]}.{kind}"]
    if part == "neck":
        return [f"{_tcb_layer(*path)}.{kind}"]
    if path[0] == "extras":
        return [f"extras.{vgg_ports.extra_layer(path[1:])}.{kind}"]
    if path[1] == "scales":
        return [f"{path[2]}_L2Norm.weight"]
    return [f"vgg.{vgg_ports.trunk_layer(path[1:])}.{kind}"]


def _tcb_layer(part: str, level: str, number: str = "0", *_: str) -> str:
    """Its lists have convolution, ReLU, convolution for each level, then ReLU, convolution, ReLU."""
    if part == "transfer":
        return f"tcb0.{3 * int(level) + 2 * int(number)}"
    return f"tcb1.{level}" if part == "enlarge" else f"tcb2.{3 * int(level) + 1}"


def unneeded(key: str) -> bool:
    """Never: every tensor of its files is used here."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background is the first class there in both modules, and the last one here."""
    background_last(state, "class_logits", _outputs(source))
    background_last(state, "anchor_logits", 2)


def _outputs(source: Source) -> int:
    return vgg_ports.outputs(source, _CLASS_BIAS, _BOX_BIAS, boxes=3)
