"""Imports weights of the IoU-aware RetinaNet, whose authors changed mmdetection 0.6 (Wu et al., arXiv 1912.05992)."""

from __future__ import annotations

from typing import Any

from singleshot.errors import UserError
from singleshot.weights.importers import mmdetection
from singleshot.weights.importers.importer import Source
from singleshot.weights.importers.mmdetection_retinanet import IOU, arguments, has_names
from singleshot.weights.importers.mmdetection_retinanet import finish as finish
from singleshot.weights.importers.mmdetection_retinanet import rename as rename
from singleshot.weights.importers.mmdetection_retinanet import unneeded as unneeded

TITLE = "the IoU-aware RetinaNet"

_ALPHA = 0.5  # written into the authors' code


def recognises(source: Source) -> bool:
    """Mmdetection's RetinaNet with one more layer, for the IoU."""
    return has_names(source) and f"{IOU}.weight" in source.shapes


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """`iou_retinanet` with the conventions of mmdetection 0.6, and the authors' weight of the IoU in the score."""
    told = mmdetection.told(source)
    given = arguments(source, told, old=True)
    own = sum(f"bbox_head.iou_convs.{k}.conv.weight" in source.shapes for k in range(given["tower_depth"]))
    if own not in (0, given["tower_depth"]):
        raise UserError(
            f"the IoU has {own} convolutions of its own and shares {given['tower_depth'] - own} with the boxes; "
            "expected all of one kind"
        )
    alpha = told.part("bbox_head").get("alpha", _ALPHA)
    return "iou_retinanet", {
        **given,
        "iou_alpha": alpha,
        "iou_branch": "own" if own else "box",
        "iou_detach": False,  # in their code gradients flow through the target
    }
