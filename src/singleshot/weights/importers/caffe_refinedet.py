"""Imports the RefineDet authors' Caffe weights (sfzhang15/RefineDet): 320 and 512 pixels, VGG-16 and ResNet-101."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from singleshot.backbones import caffe_names
from singleshot.backbones.resnet import DESIGNS
from singleshot.errors import UserError
from singleshot.source import Source
from singleshot.weights.importers import caffe
from singleshot.weights.importers.class_names import after_background
from singleshot.weights.importers.rows import background_last

TITLE = "the authors' RefineDet (Caffe)"

_SIDE = 320  # if the file does not say it: both sizes have the same tensors
_STRIDES = (8, 16, 32, 64)
_ARM = {
    "vgg16": ("conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2"),
    "resnet101": tuple(f"res{name}_inter" for name in ("res3b3_relu", "res4b22_relu", "res5c_relu", "res6_relu")),
}
_ODM = {
    "vgg16": ("P3", "P4", "P5", "P6"),
    "resnet101": tuple(f"res{name}_inter" for name in ("P3", "P4", "P5", "P6")),
}
_HEAD = re.compile(r"(refiner\.)?head(?:\.1)?\.levels\.(\d)\.[01]\.predict\.(?:class|anchor|box)_(logits|deltas)\.(.+)")
_BLOCK = re.compile(r"(refiner\.)?head\.0\.blocks\.(\d)\.(.+)")
_NECK = re.compile(r"neck\.(transfer|enlarge|finish)\.(\d)\.(?:([01])\.)?(?:([01])\.)?([a-z_]+)")
# The authors' test program applies soft-NMS to COCO's models; no file of theirs has it.
_COCO_TEST = {"threshold": 0.016, "candidates": None, "soft_nms": 0.3}


def recognises(source: Source) -> bool:
    """The layers of predictions of both modules, on one of the two trunks."""
    shapes = source.shapes
    return any(
        f"{_ARM[trunk][0]}_mbox_conf.weight" in shapes and f"{_ODM[trunk][0]}_mbox_conf.weight" in shapes
        for trunk in _ARM
    )


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`refinedet` and its arguments: from the net where it says them, else those of the authors' scripts."""
    trunk = _trunk(source)
    boxes = [3] * len(_STRIDES)
    objects = caffe.outputs_of(source, _ARM[trunk], boxes)
    if objects != 2:
        raise UserError(f"the first module has {objects} classes, expected 2: background and object")
    outputs = caffe.outputs_of(source, _ODM[trunk], boxes)
    told: dict[str, Any] = {
        **after_background(outputs),
        "backbone": trunk,
        "image_size": list(caffe.image_size(source) or (_SIDE, _SIDE)),
        "pixels": caffe.pixels(source),
        **_anchors(source, _ARM[trunk]),
        **(caffe.detection(source, theta=True) or (_COCO_TEST if outputs == 81 else {})),
    }
    if trunk == "resnet101":
        caffe.unlike(source, {"res3a_branch2a": {"stride": [2]}, "res5a_branch2a": {"stride": [2]}})
        told["backbone_options"] = {"stride_first": True, "pool": "ceil"}
    else:
        caffe.unlike(source, {"fc6": {"dilation": [3]}})
    return "refinedet", told


def _trunk(source: Source) -> str:
    return "vgg16" if "conv1_1.weight" in source.shapes else "resnet101"


def _anchors(source: Source, levels: Sequence[str]) -> dict[str, Any]:
    """The sizes of the anchors, as the net says; nothing if it says nothing."""
    found = caffe.priors(source, levels)
    if found is None:
        return {}
    expected = zip(found, _STRIDES, strict=True)
    if wrong := [
        prior.layer
        for prior, stride in expected
        if (prior.ratios, prior.step, prior.clip, prior.largest) != ((2.0,), stride, False, None)
    ]:
        raise UserError(
            f"layer {wrong[0]}: expected one size, the ratio 2, the steps {list(_STRIDES)} and no clipping; other "
            "anchors are not possible here"
        )
    return {"anchor_sizes": [float(prior.smallest) for prior in found]}


def rename(key: str, source: Source) -> Sequence[str]:
    """Caffe's layer, and the kind of entry."""
    trunk = _trunk(source)
    if found := _HEAD.fullmatch(key):
        levels = _ARM if found[1] else _ODM
        layer = "mbox_conf" if found[3] == "logits" else "mbox_loc"
        return (f"{levels[trunk][int(found[2])]}_{layer}.{found[4]}",)
    if found := _BLOCK.fullmatch(key):
        levels = _ARM if found[1] else _ODM
        return (caffe_names.bottleneck(found[3], levels[trunk][int(found[2])].removeprefix("res")),)
    if found := _NECK.fullmatch(key):
        return (_neck(found[1], int(found[2]), found[3], found[4], found[5]),)
    if key.startswith("backbone.extras.0."):
        part = key.removeprefix("backbone.extras.0.")
        if trunk == "resnet101":
            return (caffe_names.bottleneck(part, "6"),)
        number, _, kind = part.replace(".0.", ".").partition(".")
        return (f"conv6_{int(number) + 1}.{kind}",)
    part = key.removeprefix("backbone.backbone.")
    return (caffe_names.vgg16(part) if trunk == "vgg16" else caffe_names.resnet(part, DESIGNS[trunk].depths),)


def _neck(part: str, level: int, first: str | None, second: str | None, kind: str) -> str:
    """A layer of the transfer connection blocks; with batch norm they are three layers in Caffe."""
    if part == "transfer":
        layer, place = f"TL{level + 3}_{int(first or 0) + 1}", second
    else:
        layer, place = (f"P{level + 4}-up" if part == "enlarge" else f"P{level + 3}"), first
    if place != "1":
        return f"{layer}.{kind}"
    return f"{layer}_{'scale' if kind in ('weight', 'bias') else 'bn'}.{kind}"


def unneeded(key: str) -> bool:
    """Never: every tensor is used."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The background becomes the last class, in both modules."""
    trunk = _trunk(source)
    background_last(state, "anchor_logits", 2)
    outputs = caffe.outputs_of(source, _ODM[trunk][:1], [3])
    background_last(state, "class_logits", outputs)
