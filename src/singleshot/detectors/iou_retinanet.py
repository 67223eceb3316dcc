"""IoU-aware Single-stage Object Detector for Accurate Localization (Wu et al., 2020, arXiv 1912.05992)."""

from __future__ import annotations

from typing import Any, Literal

from singleshot.detectors.detector import Detector
from singleshot.detectors.registry import VARIANTS, Variant, register
from singleshot.detectors.retinanet import SMALL, retinanet
from singleshot.errors import UserError
from singleshot.outputs.iou import IoUHead


@register
def iou_retinanet(
    *,
    num_classes: int,
    iou_alpha: float | None = 0.5,
    iou_loss: Literal["bce", "l2", "l1"] = "bce",
    iou_detach: bool = True,
    iou_branch: Literal["box", "own"] = "box",
    relu_before_p7: bool = False,
    ignore_crowd: bool = False,
    **arguments: Any,
) -> Detector:
    """RetinaNet whose box tower also predicts the IoU of the box with its object (section 3).

    Args:
        num_classes: Number of classes, without the background.
        iou_alpha: Weight of the class in the score p^alpha * IoU^(1 - alpha) (equation 5); none: p * IoU. Default 0.5.
        iou_loss: Loss of the predicted IoU: bce (equation 3), l2 (Table 2) or l1 (section 3.1). Default bce.
        iou_detach: False: gradients flow through the target IoU into the boxes, as in the authors' later code. Default
            true.
        iou_branch: box: one convolution at the end of the boxes' tower; own: a tower of its own (section 3.1). Default
            box.
        relu_before_p7: ReLU between levels 6 and 7, which the authors' code does not have. Default false.
        ignore_crowd: Leave anchors that lie at least half inside a crowd region out of the loss. Default false.
        arguments: All other arguments are RetinaNet's (`retinanet`).

    Returns:
        The detector. All weights are random, except those from `backbone_weights`.

    Raises:
        UserError: An argument is out of range or contradicts another one, or weights do not fit.
    """
    if "iou_head" in arguments:
        raise UserError(
            "iou_retinanet always has its IoU head: set iou_alpha, iou_loss, iou_detach and iou_branch, not iou_head"
        )
    return retinanet(
        num_classes=num_classes,
        iou_head=IoUHead(alpha=iou_alpha, loss=iou_loss, detach=iou_detach, branch=iou_branch),
        relu_before_p7=relu_before_p7 or not arguments.get("pyramid", True),  # without a pyramid there is no P7
        ignore_crowd=ignore_crowd,
        **arguments,
    )


_TABLE = "IoU-aware paper, Table 1"
VARIANTS["iou_retinanet_r50"] = Variant("iou_retinanet", {}, f"COCO test-dev AP 36.9 ({_TABLE})")
VARIANTS["iou_retinanet_r101"] = Variant(
    "iou_retinanet", {"backbone": "resnet101"}, f"COCO test-dev AP 39.2 ({_TABLE})"
)
# The paper says 32x8d. The authors' configuration is 32x4d, and so is the baseline figure that they give.
VARIANTS["iou_retinanet_x101"] = Variant(
    "iou_retinanet", {"backbone": "resnext101_32x4d"}, f"COCO test-dev AP 40.6 ({_TABLE})"
)
VARIANTS["iou_retinanet320_mobilenetv2"] = Variant("iou_retinanet", SMALL)
