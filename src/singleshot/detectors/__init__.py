"""The detectors: one file per paper. Each file puts shared parts together."""

from singleshot.detectors.detector import Detector
from singleshot.detectors.models import models
from singleshot.detectors.registry import BUILDERS, VARIANTS, create, find_builder, remembers_arguments

from singleshot.detectors.ssd import ssd  # isort: skip (the tables list the detectors in this order)
from singleshot.detectors.retinanet import retinanet  # isort: skip
from singleshot.detectors.iou_retinanet import iou_retinanet  # isort: skip
from singleshot.detectors.refinedet import refinedet  # isort: skip
from singleshot.detectors.torchvision_labels import torchvision_labels

__all__ = [
    "BUILDERS",
    "VARIANTS",
    "Detector",
    "create",
    "find_builder",
    "iou_retinanet",
    "models",
    "refinedet",
    "remembers_arguments",
    "retinanet",
    "ssd",
    "torchvision_labels",
]
