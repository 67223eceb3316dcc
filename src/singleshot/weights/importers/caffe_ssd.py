"""Imports the SSD authors' Caffe weights (weiliu89/caffe, branch `ssd`): SSD300 and SSD512 on VGG-16."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from singleshot.backbones import caffe_names
from singleshot.detectors.ssd_boxes import PUBLISHED_SIZES, PUBLISHED_STEPS
from singleshot.errors import UserError
from singleshot.source import Source
from singleshot.weights.importers import caffe
from singleshot.weights.importers.class_names import after_background
from singleshot.weights.importers.rows import background_last

TITLE = "the authors' SSD (Caffe)"

_FIRST = "conv4_3_norm"
_LEVELS = (_FIRST, "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2", "conv10_2")
_BOXES = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
_FEW, _MANY = (2.0,), (2.0, 3.0)
_EXTRA = re.compile(r"backbone\.extras\.(\d+)\.([01])\.0\.(.+)")
_HEAD = re.compile(r"head\.levels\.(\d+)\.[01]\.predict\.(class_logits|box_deltas)\.(.+)")
# The layers whose settings tell this network from others with tensors of the same shapes.
_NETWORK: Mapping[str, Mapping[str, Sequence[int]]] = {"fc6": {"dilation": [6]}, "conv6_2": {"stride": [2]}}
_TAILS: Mapping[int, Mapping[str, Mapping[str, Sequence[int]]]] = {
    300: {name: {"stride": [1], "pad": [0]} for name in ("conv8_2", "conv9_2")},
    512: {**{name: {"stride": [2], "pad": [1]} for name in ("conv8_2", "conv9_2")}, "conv10_2": {"pad": [1]}},
}


def recognises(source: Source) -> bool:
    """The layers of predictions on the normalised conv4_3 and on fc7, without RefineDet's second module."""
    shapes = source.shapes
    names = (f"{_FIRST}.weight", f"{_FIRST}_mbox_conf.weight", "fc7_mbox_conf.weight", "conv1_1.weight")
    return all(name in shapes for name in names) and "P3_mbox_conf.weight" not in shapes


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`ssd` and its arguments: from the net where it says them, else those of the authors' scripts."""
    if any(name.startswith("pool6_mbox") for name in source.shapes):
        raise UserError(
            "this is the SSD of early 2016, whose last level is an average over the image (pool6); expected SSD300 or "
            "SSD512 as published in the paper's last version"
        )
    side = 512 if "conv10_2.weight" in source.shapes else 300
    if (stated := caffe.image_size(source)) not in (None, (side, side)):
        raise UserError(f"this SSD takes images of {stated}, which is not possible here; expected {side}x{side} pixels")
    levels = _LEVELS[: len(_BOXES[side])]
    outputs = caffe.outputs_of(source, levels, _BOXES[side])
    caffe.unlike(source, {**_NETWORK, **_TAILS[side]})
    return "ssd", {
        **after_background(outputs),
        "backbone": "vgg16",
        "image_size": side,
        "pixels": caffe.pixels(source),
        **_default_boxes(source, levels, side, "coco" if outputs == 81 else "voc"),
        **caffe.detection(source),
    }


def _default_boxes(source: Source, levels: Sequence[str], side: int, usual: str) -> dict[str, Any]:
    """Sizes, centres and clipping, as the net says, else as in the authors' script for that data."""
    found = caffe.priors(source, levels)
    if found is None:
        sizes = PUBLISHED_SIZES[usual, side]
        return {"box_sizes": [float(int(size)) for size in sizes]}
    if any(prior.largest is None for prior in found):
        raise UserError(f"a layer such as {found[0].layer} has no max_size: this is not possible here")
    unequal = [a.layer for a, b in pairwise(found) if a.largest != b.smallest]
    ratios = [_FEW if boxes == 4 else _MANY for boxes in _BOXES[side]]
    unequal += [prior.layer for prior, expected in zip(found, ratios, strict=True) if prior.ratios != expected]
    if unequal:
        raise UserError(
            f"layer {unequal[0]}: expected a max_size that is the min_size of the next level, and the ratios 2, or 2 "
            "and 3; other default boxes are not possible here"
        )
    steps = tuple(prior.step for prior in found)
    if steps not in ((None,) * len(steps), PUBLISHED_STEPS[side]):
        raise UserError(f"the steps of the default boxes are {steps}; expected {PUBLISHED_STEPS[side]}, or none")
    return {
        "box_sizes": [float(size) for size in (*(prior.smallest for prior in found), found[-1].largest or 0)],
        "box_centres": "paper" if steps[0] is None else "authors",
        "clip": caffe.same(found, "clip"),
    }


def rename(key: str, source: Source) -> Sequence[str]:
    """Caffe's layer, and "weight" or "bias"."""
    if found := _HEAD.fullmatch(key):
        layer = "mbox_conf" if found[2] == "class_logits" else "mbox_loc"
        return (f"{_LEVELS[int(found[1])]}_{layer}.{found[3]}",)
    if found := _EXTRA.fullmatch(key):
        return (f"conv{int(found[1]) + 6}_{int(found[2]) + 1}.{found[3]}",)
    return (caffe_names.vgg16(key.removeprefix("backbone.backbone.")),)


def unneeded(key: str) -> bool:
    """Never: every tensor is used."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background becomes the last class."""
    outputs = caffe.outputs_of(source, [_FIRST], [4])
    background_last(state, "class_logits", outputs)
