"""Imports weights of mmdetection's SSD300 and SSD512 on VGG-16, of its versions 2 and 3, and of those before."""

from __future__ import annotations

import warnings
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from singleshot.errors import UserError
from singleshot.weights.importers import mmdetection
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.mmdetection import Told
from singleshot.weights.importers.rows import background_last

TITLE = "mmdetection's SSD"

_HEADS = {"class_logits": "cls_convs", "box_deltas": "reg_convs"}
_BOXES = {6: (300, [4, 6, 6, 6, 4, 4]), 7: (512, [4, 6, 6, 6, 6, 4, 4])}  # levels: side, boxes in each cell
_PERCENT = {(300, 15): 7, (300, 20): 10, (512, 10): 4, (512, 15): 7}  # (side, smallest share): share of the first map
_USUAL = {("coco", 300): (0.15, 0.9), ("voc", 300): (0.2, 0.9), ("coco", 512): (0.1, 0.9), ("voc", 512): (0.15, 0.9)}
_STRIDES = {300: [8, 16, 32, 64, 100, 300], 512: [8, 16, 32, 64, 128, 256, 512]}


def recognises(source: Source) -> bool:
    """VGG-16's numbered layers below a pair of heads for each map, with the names of version 2.14 or those before."""
    return "backbone.features.31.weight" in source.shapes and _new(source) != _old(source)


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd` with mmdetection's default boxes, pixels and inference."""
    told = mmdetection.told(source)
    boxes = list(takewhile(bool, (_rows(source, "box_deltas", level) // 4 for level in count())))
    if len(boxes) not in _BOXES or boxes != _BOXES[len(boxes)][1]:
        raise UserError(
            f"the heads have {boxes} boxes in a cell; expected those of SSD300, {_BOXES[6][1]}, or of SSD512, "
            f"{_BOXES[7][1]}"
        )
    side, _ = _BOXES[len(boxes)]
    classes = _rows(source, "class_logits", 0) // boxes[0] - 1
    if classes < 1:
        raise UserError("the heads have no classes beside the background")
    generator = mmdetection.mapping(told.part("bbox_head").get("anchor_generator"))
    if _before_2(source, told) or str(generator.get("type")).startswith("Legacy"):
        # Corners are rounded to whole pixels there. mmdetection's own script that upgrades a file leaves that out too.
        warnings.warn(
            f"{source.where}made with the boxes of mmdetection before 2.0, which are up to a pixel from those here",
            stacklevel=2,
        )
    if not told.config:
        mmdetection.taken_for(source, f"an SSD{side} with the settings of mmdetection's own configuration")
    size = told.size
    if size is not None and (size[0] != [side, side] or size[1]):
        raise UserError(f"its configuration resizes images to {size[0]}; an SSD of this layout takes {side} x {side}")
    inference = {"threshold": 0.02, "nms": 0.45, "candidates": 1000, "detections": 200, **told.inference}
    return "ssd", {
        **mmdetection.classes(classes, source, told),
        "image_size": side,
        "pixels": told.pixels or [[123.675 / 255, 116.28 / 255, 103.53 / 255], [1 / 255] * 3, "rgb"],
        "box_shapes": _shapes(side, classes, told),
        "threshold": inference["threshold"],
        "nms": inference["nms"],
        "candidates_of_level": inference["candidates"],
        "detections": inference["detections"],
    }


def rename(key: str, source: Source) -> list[str]:
    """The names since version 2.14, and those before it."""
    part, *path, kind = key.split(".")
    if part == "head":  # levels.LEVEL.BRANCH.predict.OUTPUT
        name = f"bbox_head.{_HEADS[path[-1]]}.{path[1]}"
        return [f"{name}.0.{kind}", f"{name}.{kind}"]
    if path[0] == "extras":  # LEVEL.FIRST_OR_SECOND.0
        level, place = int(path[1]), int(path[2])
        return [f"neck.extra_layers.{level}.{place}.conv.{kind}", f"backbone.extra.{2 * level + place}.{kind}"]
    layer = path[1]
    if layer == "scales":
        return [f"neck.l2_norm.{kind}", f"backbone.l2_norm.{kind}"]
    number = {"fc6": "31", "fc7": "33"}.get(layer) or path[2]
    return [f"backbone.features.{number}.{kind}"]


def unneeded(key: str) -> bool:
    """Averages of the weights, of which the file holds a second copy."""
    return key.startswith("ema_")


def finish(state: dict[str, Tensor], source: Source) -> None:
    """Before version 2 the background was the first class. Here it is the last."""
    if _before_2(source, mmdetection.told(source)):
        background_last(state, "class_logits", _rows(source, "class_logits", 0) // _BOXES[6][1][0])


def _new(source: Source) -> bool:
    return "neck.l2_norm.weight" in source.shapes and "bbox_head.cls_convs.0.0.weight" in source.shapes


def _old(source: Source) -> bool:
    return "backbone.l2_norm.weight" in source.shapes and "bbox_head.cls_convs.0.weight" in source.shapes


def _rows(source: Source, output: str, level: int) -> int:
    """The rows of a predicting layer; 0 if there is no such level."""
    middle = ".0" if _new(source) else ""
    shape = source.shapes.get(f"bbox_head.{_HEADS[output]}.{level}{middle}.weight", (0,))
    return shape[0]


def _before_2(source: Source, told: Told) -> bool:
    """Whether a file is older than version 2. Without a version or configuration, the larger bias tells the background.

    No name and no shape shows it: the names changed in 2.14. Most of what a detector sees is background.
    """
    if _new(source):
        return False
    if told.version or told.config:
        return told.old
    bias = source.tensors["bbox_head.cls_convs.0.bias"].float().reshape(_BOXES[6][1][0], -1).mean(0)
    return bool(bias[0] > bias[-1])


def _shapes(side: int, classes: int, told: Told) -> list[list[list[float]]]:
    """[width, height] of the boxes of a cell, for each map, as shares of the image's side."""
    head = told.part("bbox_head")
    given = {**head, **mmdetection.mapping(head.get("anchor_generator"))}
    ratios = given.get("ratios", given.get("anchor_ratios"))
    levels = len(_STRIDES[side])
    expected = [[2], *[[2, 3]] * (levels - 3), [2], [2]]
    if given.get("strides", given.get("anchor_strides", _STRIDES[side])) != _STRIDES[side] or (
        ratios is not None and ratios != expected
    ):
        raise UserError(
            f"its configuration has the strides {given.get('strides', given.get('anchor_strides'))} and the ratios "
            f"{ratios}; expected {_STRIDES[side]} and {expected}"
        )
    smallest, largest = _sizes(side, classes, given)
    if not len(smallest) == len(largest) == levels or min(smallest) <= 0:
        raise UserError(f"its configuration has default boxes of {smallest} and {largest} pixels for {levels} maps")
    shapes = []
    for low, high, more in zip(smallest, largest, expected, strict=True):
        middle = (low * high) ** 0.5
        boxes = [[low, low], [middle, middle]]
        for ratio in more:
            boxes += [[low * ratio**0.5, low / ratio**0.5], [low / ratio**0.5, low * ratio**0.5]]
        shapes.append([[edge / side for edge in box] for box in boxes])
    return shapes


def _sizes(side: int, classes: int, given: Any) -> tuple[list[float], list[float]]:
    """Sides in pixels of the small squares, and those of the large ones (before the mean with the small ones)."""
    if given.get("min_sizes") and given.get("max_sizes"):
        return list(given["min_sizes"]), list(given["max_sizes"])
    # The usual settings are COCO's, unless the number of classes is VOC's.
    low, high = given.get("basesize_ratio_range") or _USUAL["voc" if classes == 20 else "coco", side]
    first, last = int(low * 100), int(high * 100)
    step = (last - first) // (len(_STRIDES[side]) - 2)
    if (side, first) not in _PERCENT or step < 1:
        raise UserError(
            f"its configuration has a basesize_ratio_range of {(low, high)}, which mmdetection does not have"
        )
    percents = [_PERCENT[side, first], *range(first, last + 1, step)]
    ends = [first, *(percent + step for percent in percents[1:])]
    smallest, largest = ([float(side * percent // 100) for percent in edges] for edges in (percents, ends))
    return smallest, largest
