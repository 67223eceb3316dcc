"""Small detectors, one of each paper and mixtures of their parts: every one keeps the contract, and can be exported."""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable
from pathlib import Path

from singleshot.detectors import Detector, iou_retinanet, refinedet, retinanet, ssd
from singleshot.losses.focal import FocalLoss
from singleshot.losses.quality_focal import QualityFocalLoss

DETECTORS: dict[str, Callable[..., Detector]] = {
    "ssd": functools.partial(
        ssd, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=(80, 112), ignore_crowd=True
    ),
    "retinanet": functools.partial(
        retinanet, backbone="resnet18", channels=64, tower_depth=2, tower_norm="group", image_size=(80, 112)
    ),
    "iou_retinanet": functools.partial(  # without norm in the towers, and with the aspect ratio kept
        iou_retinanet,
        backbone="mobilenetv2",
        backbone_options={"width": 0.25},
        channels=32,
        tower_depth=2,
        image_size=64,
        max_size=112,
    ),
    "refinedet": functools.partial(
        refinedet, backbone="mobilenetv2", backbone_options={"width": 0.25}, channels=32, image_size=(64, 128)
    ),
}
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
refined_retinanet = runpy.run_path(str(EXAMPLES / "new_detector.py"))["refined_retinanet"]
MIXTURES: dict[str, Callable[..., Detector]] = {
    "ssd_focal": functools.partial(DETECTORS["ssd"], classification=FocalLoss()),
    "ssd_iou": functools.partial(DETECTORS["ssd"], iou_head=True),
    "refinedet_focal_iou": functools.partial(DETECTORS["refinedet"], classification=FocalLoss(), iou_head=True),
    "retinanet_outputs": functools.partial(
        DETECTORS["retinanet"], classification=QualityFocalLoss(), iou_head={"branch": "own"}, outputs=["Centreness"]
    ),
    "refinedet_fpn": functools.partial(DETECTORS["refinedet"], neck="fpn"),
    "refinedet_attention": functools.partial(DETECTORS["refinedet"], attention="se"),
    "refined_retinanet": functools.partial(refined_retinanet, image_size=64),
}
OWN = {"refined_retinanet": refined_retinanet}  # builders that a file cannot name: they are passed to `load`
