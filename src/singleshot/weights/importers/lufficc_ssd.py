"""Imports weights of lufficc/SSD into our SSD: its models of 300 and 512 pixels on VGG-16."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from singleshot.errors import UserError
from singleshot.weights.importers import vgg_ports
from singleshot.weights.importers.class_names import after_background
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.rows import background_last

TITLE = "lufficc/SSD"

_CLASS_HEADS, _BOX_HEADS = "box_head.predictor.cls_headers", "box_head.predictor.reg_headers"
_VOC_512 = [35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65]  # the authors' last number is 537.6
_LISTS = {"class_logits": _CLASS_HEADS, "box_deltas": _BOX_HEADS}


def recognises(source: Source) -> bool:
    """Its names of both lists of heads, on any trunk."""
    return all(any(key.startswith(f"{heads}.") for key in source.shapes) for heads in _LISTS.values())


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd` with that project's default boxes, pixels and suppression."""
    if "backbone.vgg.0.weight" not in source.shapes:
        raise UserError(
            "these weights of lufficc/SSD are not on VGG-16. Its MobileNet and EfficientNet models have extra levels "
            "and heads of their own, which are not possible here; expected a model of a configuration vgg_ssd300... or "
            "vgg_ssd512..."
        )
    outputs = _outputs(source)
    size = 512 if "backbone.extras.8.weight" in source.shapes else 300
    return "ssd", {
        **after_background(outputs),
        "image_size": size,
        "pixels": vgg_ports.PIXELS,
        "box_sizes": "coco" if outputs == 81 else {300: "voc", 512: _VOC_512}[size],
        "clip": "centres_and_sizes",
        "threshold": 0.01,
        "nms": 0.45,
        "candidates": None,
        "detections": 100,
    }


def rename(key: str, source: Source) -> list[str]:
    """That project's name of an entry of our state dict."""
    part, *path, kind = key.split(".")
    if part == "head":  # levels.LEVEL.BRANCH.predict.OUTPUT
        return [f"{_LISTS[path[-1]]}.{path[1]}.{kind}"]
    if path[0] == "extras":
        return [f"backbone.extras.{vgg_ports.extra_layer(path[1:])}.{kind}"]
    if path[1] == "scales":
        return ["backbone.l2_norm.weight"]
    return [f"backbone.vgg.{vgg_ports.trunk_layer(path[1:])}.{kind}"]


def unneeded(key: str) -> bool:
    """Never: every tensor of its files is used here."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background is the first class there, and the last one here."""
    background_last(state, "class_logits", _outputs(source))


def _outputs(source: Source) -> int:
    return vgg_ports.outputs(source, f"{_CLASS_HEADS}.0.bias", f"{_BOX_HEADS}.0.bias", boxes=4)
