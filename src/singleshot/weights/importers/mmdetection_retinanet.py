"""Imports weights of mmdetection's RetinaNet on a ResNet or ResNeXt, of all its versions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from singleshot.backbones.resnet import DESIGNS, BasicBlock
from singleshot.errors import UserError
from singleshot.weights.importers import mmdetection, resnets
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.mmdetection import Told

TITLE = "mmdetection's RetinaNet"

IOU = "bbox_head.retina_iou"
"""The layer of the IoU-aware fork, which has no other difference in its names."""

_CLASSES, _BOXES = "bbox_head.retina_cls", "bbox_head.retina_reg"
_P6 = "neck.fpn_convs.3.conv.weight"
_PREDICT = {"class_logits": _CLASSES, "box_deltas": _BOXES, "iou_logits": IOU}
_TOWERS = {"0": "cls_convs", "1": "reg_convs", "2": "iou_convs"}
_STRIDES = [8, 16, 32, 64, 128]
_STYLES: Mapping[str, dict[str, Any]] = {
    "pytorch": {"pixels": "imagenet_rgb", "norm": "eval"},
    "caffe": {
        "pixels": [[123.675 / 255, 116.28 / 255, 103.53 / 255], [1 / 255] * 3, "bgr"],
        "norm": "frozen",
        "backbone_options": {"stride_first": True},
    },
}
_LOSSES = {"L1Loss": "l1", "SmoothL1Loss": "smooth_l1", "GIoULoss": "giou"}


def recognises(source: Source) -> bool:
    """Mmdetection's names of both predicting layers, and a feature pyramid with a sixth level."""
    return has_names(source) and f"{IOU}.weight" not in source.shapes


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`retinanet` with the anchors, pixels and inference of the file's configuration, else of mmdetection's own."""
    return "retinanet", arguments(source, mmdetection.told(source))


def arguments(source: Source, told: Told, *, old: bool | None = None) -> dict[str, Any]:
    """The arguments of `retinanet`. `old`: with the conventions of versions before 2; None: as the file says."""
    shapes = source.shapes
    old = told.old if old is None else old
    channels, p6_inputs = shapes[_P6][:2]
    anchors = _anchors(told, old=old)
    boxes, rest = divmod(shapes[f"{_BOXES}.weight"][0], 4)
    expected = anchors["octaves"] * len(anchors["aspect_ratios"])
    classes, more = divmod(shapes[f"{_CLASSES}.weight"][0], boxes)
    if rest or more or boxes != expected:
        raise UserError(
            f"{_BOXES} has {4 * boxes + rest} rows and {_CLASSES} {shapes[f'{_CLASSES}.weight'][0]}; expected "
            f"{4 * expected} and a multiple of {expected}, for {anchors['octaves']} sizes and "
            f"{len(anchors['aspect_ratios'])} ratios of anchors"
        )
    _refuse(told)
    depth = len(list(takewhile(lambda name: name in shapes, (_tower("cls_convs", k, shapes) for k in count()))))
    design, style = resnets.design(source, "backbone."), _STYLES[_style(source, told)]
    bottlenecks = DESIGNS[design].block is not BasicBlock  # only they have a 1x1 convolution that may have the stride
    return {
        **mmdetection.classes(classes, source, told),
        "backbone": design,
        **{name: value for name, value in style.items() if bottlenecks or name != "backbone_options"},
        "pixels": told.pixels or style["pixels"],
        **_sizes(told),
        "frozen_stages": 2,  # the stem and layer1
        "channels": channels,
        "p6": "p5" if p6_inputs == channels else "c5",
        "relu_before_p7": bool(told.part("neck").get("relu_before_extra_convs", False)),
        "tower_depth": depth,
        **anchors,
        **_loss(told, old=old),
        **{"threshold": 0.05, "nms": 0.5, "candidates": 1000, "detections": 100, **told.inference},
    }


def rename(key: str, source: Source) -> list[str]:
    """Mmdetection's names for an entry of our state dict: since its version 0.6, and before."""
    part, *path, kind = key.split(".")
    if part == "backbone":
        return [key]
    if part == "neck":
        number = {"p6": "3", "p7": "4"}.get(path[0]) or path[1]
        return [f"neck.{'lateral_convs' if path[0] == 'lateral' else 'fpn_convs'}.{number}.conv.{kind}"]
    if path[3] == "predict":  # levels.0.BRANCH.predict.OUTPUT
        return [f"{_PREDICT[path[4]]}.{kind}"]
    name = f"bbox_head.{_TOWERS[path[2]]}.{int(path[4]) // 2}"  # levels.0.BRANCH.tower.NUMBER, with a ReLU after each
    return [f"{name}.conv.{kind}", f"{name}.{kind}"]


def unneeded(key: str) -> bool:
    """Averages of the weights, of which the file holds a second copy."""
    return key.startswith("ema_")


def finish(state: dict[str, Tensor], source: Source) -> None:
    """Nothing: all values mean the same."""


def has_names(source: Source) -> bool:
    """Mmdetection's names of both predicting layers, and a feature pyramid with a sixth level."""
    return all(name in source.shapes for name in (f"{_CLASSES}.weight", f"{_BOXES}.weight", _P6))


def _tower(name: str, number: int, shapes: Mapping[str, Any]) -> str:
    new = f"bbox_head.{name}.{number}.conv.weight"
    return new if new in shapes else f"bbox_head.{name}.{number}.weight"


def _style(source: Source, told: Told) -> str:
    """Whether the trunk is a "caffe" or a "pytorch" one. No name and no shape shows it.

    Without a configuration the statistics of the first batch norm do: in the "caffe" trunks, which mmdetection took
    from Detectron, norms are part of the weights, and the means stay 0.
    """
    if told.config:
        return "caffe" if told.part("backbone").get("style", "pytorch") == "caffe" else "pytorch"
    mean = source.tensors.get("backbone.bn1.running_mean")
    style = "caffe" if mean is not None and not mean.count_nonzero() else "pytorch"
    mmdetection.taken_for(source, f'a RetinaNet with the settings of mmdetection\'s own "{style}" configurations')
    return style


def _anchors(told: Told, *, old: bool) -> dict[str, Any]:
    head = told.part("bbox_head")
    given = {**head, **mmdetection.mapping(head.get("anchor_generator"))}
    kind = given.get("type") if "anchor_generator" in head else "AnchorGenerator"
    strides = given.get("strides", given.get("anchor_strides", _STRIDES))
    scales = given.get("scales")
    base, octaves = given.get("octave_base_scale", 4), given.get("scales_per_octave", 3)
    if isinstance(scales, list) and len(scales) == 1:
        base, octaves = scales[0], 1
    elif scales is not None:
        raise UserError(
            f"its configuration has anchors of the scales {scales}; expected scales_per_octave, or one scale"
        )
    if not mmdetection.is_number(base) or base <= 0:
        raise UserError(f"its configuration has an octave_base_scale (or scale) of {base!r}; expected a number above 0")
    offset = given.get("center_offset", 0.0)
    legacy = old or kind == "LegacyAnchorGenerator"
    convention = "whole_pixels" if legacy else {0: "corner", 0.5: "centre"}.get(offset)
    if strides != _STRIDES or convention is None or "base_sizes" in given or given.get("centers"):
        raise UserError(
            f"its configuration has anchors of {kind} with strides {strides} and center_offset {offset}; expected "
            f"strides {_STRIDES}, a center_offset of 0 or 0.5, and neither base_sizes nor centers"
        )
    return {
        "anchor_sizes": [float(base * stride) for stride in _STRIDES],
        "octaves": octaves,
        "aspect_ratios": given.get("ratios", given.get("anchor_ratios", [0.5, 1.0, 2.0])),
        "anchor_convention": convention,
    }


def _refuse(told: Told) -> None:
    """Refuse what no name or shape shows, and what is not possible here."""
    head = told.part("bbox_head")
    coder = {**head, **mmdetection.mapping(head.get("bbox_coder"))}
    for name, usual in (("target_means", 0), ("target_stds", 1)):
        if any(number != usual for number in coder.get(name, [])):
            raise UserError(f"its configuration has {name} of {coder[name]}; expected {[usual] * 4}")
    if told.part("neck").get("add_extra_convs") == "on_lateral":
        raise UserError("its level 6 is made from the pyramid's lateral map; expected on_input or on_output")
    if not mmdetection.mapping(head.get("loss_cls")).get("use_sigmoid", True):
        raise UserError("its classes are scored by a softmax; expected one sigmoid per class")


def _sizes(told: Told) -> dict[str, Any]:
    if (found := told.size) is None:
        return {"image_size": 800, "max_size": 1333}
    sides, kept = found
    if kept:
        return {"image_size": min(sides), "max_size": max(sides)}
    return {"image_size": [sides[1], sides[0]]}


def _loss(told: Told, *, old: bool) -> dict[str, Any]:
    """The box loss, for training on: L1 since version 2.0, smooth L1 before."""
    given = mmdetection.mapping(told.part("bbox_head").get("loss_bbox"))
    loss = _LOSSES.get(str(given.get("type")), "smooth_l1" if old else "l1")
    return {"box_loss": loss, **({"beta": given.get("beta", 0.11 if old else 1.0)} if loss == "smooth_l1" else {})}
