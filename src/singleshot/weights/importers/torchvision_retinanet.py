"""Imports weights of torchvision's `retinanet_resnet50_fpn` and `retinanet_resnet50_fpn_v2` into our RetinaNet."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.devices import find_device
from singleshot.errors import UserError
from singleshot.source import CLASS_NAMES
from singleshot.weights.importers import resnets
from singleshot.weights.importers.batch_norm import EPSILON, absorb_epsilon
from singleshot.weights.importers.class_names import named_by_id
from singleshot.weights.importers.importer import Importer, Source, built, opened

_CLASS_LAYER, _BOX_LAYER = "head.classification_head.cls_logits", "head.regression_head.bbox_reg"
_P6 = "backbone.fpn.extra_blocks.p6.weight"
_TELLING = (f"{_CLASS_LAYER}.weight", f"{_CLASS_LAYER}.bias", f"{_BOX_LAYER}.bias", _P6)
_GROUP_NORM = "head.classification_head.conv.0.1.weight"
_ANCHORS = 9
_DROPPED = "class 0 is left out"  # a note of `prepare`

TITLE = "torchvision's RetinaNet"


def load_torchvision_retinanet(
    weights: str | Path | Mapping[str, Tensor],
    *,
    norm_epsilon: float | None = None,
    device: str | torch.device = "cpu",
    **arguments: Any,
) -> Detector:
    """RetinaNet with the weights, anchors and conventions of torchvision, in eval mode. Nothing is downloaded.

    `weights` is a file (`.pth`, read by PyTorch's restricted reader, or safetensors) or a state dict. It belongs to
    torchvision's `retinanet_resnet50_fpn` (P6 from P5) or `retinanet_resnet50_fpn_v2` (P6 from C5, group norm in the
    towers), of any torchvision version. `arguments` are those of `retinanet` and take precedence over torchvision's:
    `image_size` and `max_size` (800, 1333), `class_names`, `norm`, `frozen_stages`, `detections` (300) ... The ResNet
    or ResNeXt is the one that the weights have.

    Torchvision's class 0 is left out: its models count the objects' classes from 1, and never train on it. Give
    `class_names` for all classes, class 0 too, if yours were counted from 0. `category_ids` are torchvision's labels;
    with 91 classes they are COCO's ids. Scores and boxes equal torchvision's up to rounding (1e-4). In training, the
    box loss is torchvision's (L1; GIoU for v2). The losses are divided as in all detectors here.

    `norm_epsilon`: the epsilon of batch norm that the weights were trained with; it is folded into the scales. The
    default is 0 for v1 with 91 classes, as torchvision sets it for its released file, and 1e-5 for all others.

    Raises UserError if keys are missing, unexpected or of other shapes (they are named), and for other anchors.
    """
    found = find_device(device)
    known = None if norm_epsilon is None else partial(absorb_epsilon, epsilon=norm_epsilon)
    importer = cast(Importer, sys.modules[__name__])
    return built(opened(weights), importer, finish=known, **arguments).to(found)


def recognises(source: Source) -> bool:
    """Torchvision's two layers of predictions, above its feature pyramid."""
    return all(key in source.shapes for key in _TELLING)


def prepare(source: Source) -> Source:
    """Without the rows of class 0, unless there are names for all classes."""
    if absent := [key for key in _TELLING if key not in source.tensors]:
        first = ", ".join(list(source.tensors)[:3]) or "none"
        raise UserError(
            f"not the weights of a torchvision RetinaNet: {', '.join(absent)} missing; the keys are {first}; expected "
            "the state dict of retinanet_resnet50_fpn or its v2"
        )
    classes, rest = divmod(source.shapes[f"{_CLASS_LAYER}.bias"][0], _ANCHORS)
    if rest or classes < 2 or len(source.notes.get(CLASS_NAMES) or ()) == classes:
        return source
    kept = {}
    for place in (f"{_CLASS_LAYER}.weight", f"{_CLASS_LAYER}.bias"):
        rows = source.tensors[place]
        kept[place] = rows.reshape(_ANCHORS, classes, *rows.shape[1:])[:, 1:].flatten(0, 1)
    return dataclasses.replace(source, tensors={**source.tensors, **kept}, notes={**source.notes, _DROPPED: True})


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`retinanet` and its arguments: from the weights where they say them, else torchvision's."""
    shapes = source.shapes
    outputs, deltas = shapes[f"{_CLASS_LAYER}.bias"][0], shapes[f"{_BOX_LAYER}.bias"][0]
    if deltas != _ANCHORS * 4 or outputs % _ANCHORS:
        raise UserError(
            f"{_BOX_LAYER} has {deltas} outputs and {_CLASS_LAYER} {outputs}; expected {_ANCHORS * 4} and a "
            f"multiple of {_ANCHORS}: models with another anchor generator cannot be loaded"
        )
    num_classes = outputs // _ANCHORS
    channels, p6_inputs = shapes[_P6][:2]
    second = _GROUP_NORM in shapes
    return "retinanet", {
        **_classes(num_classes, source),
        "backbone": resnets.design(source, "backbone.body."),
        "channels": channels,
        "p6": "p5" if p6_inputs == channels else "c5",
        "relu_before_p7": True,
        "tower_norm": "group" if second else None,
        "resize": "torchvision",
        "anchor_convention": "torchvision",
        "box_loss": "giou" if second else "l1",
        "detections": 300,
        # torchvision trains the last three of the ResNet's five parts; batch norm is fixed in v1 only.
        "frozen_stages": 2,
        "norm": "train" if second else "frozen",
    }


def unneeded(key: str) -> bool:
    """Never: every tensor of torchvision's files is used here."""
    return False


def finish(state: dict[str, Tensor], source: Source) -> None:
    """Fold in the epsilon of batch norm, which torchvision sets to 0 for its released file of 91 classes."""
    released = _is_cocos(source) and _GROUP_NORM not in source.shapes
    absorb_epsilon(state, epsilon=0.0 if released else EPSILON)


def _classes(num_classes: int, source: Source) -> dict[str, Any]:
    """Torchvision's labels are the ids."""
    first = 1 if _DROPPED in source.notes else 0
    ids = list(range(first, first + num_classes))
    if _is_cocos(source):
        return {
            "num_classes": num_classes,
            "class_names": named_by_id(ids),
            "category_ids": ids,
        }
    return {"num_classes": num_classes, "category_ids": ids}


def _is_cocos(source: Source) -> bool:
    return _DROPPED in source.notes and source.shapes[f"{_CLASS_LAYER}.bias"][0] == 90 * _ANCHORS


def rename(key: str, source: Source) -> list[str]:
    """Torchvision's names for an entry of our state dict: since its version 0.13, and before."""
    part, *path, kind = key.split(".")
    if part == "backbone":
        return [f"backbone.body.{'.'.join(path)}.{kind}"]
    if part == "neck" and path[0] in ("p6", "p7"):
        return [f"backbone.fpn.extra_blocks.{path[0]}.{kind}"]
    if part == "neck":
        block = {"lateral": "inner_blocks", "output": "layer_blocks"}[path[0]]
        return [f"backbone.fpn.{block}.{path[1]}.0.{kind}", f"backbone.fpn.{block}.{path[1]}.{kind}"]
    branch, group, name = path[2:]  # head.levels.0.BRANCH.predict.NAME.KIND, or tower in place of predict
    if group == "predict":
        return [f"{_CLASS_LAYER if name == 'class_logits' else _BOX_LAYER}.{kind}"]
    tower = f"head.{('classification_head', 'regression_head')[int(branch)]}.conv"
    if _GROUP_NORM in source.shapes:  # convolution, norm, ReLU
        return [f"{tower}.{int(name) // 3}.{int(name) % 3}.{kind}"]
    return [f"{tower}.{int(name) // 2}.0.{kind}", f"{tower}.{name}.{kind}"]
