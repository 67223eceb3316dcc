"""The detectors: one file per paper, each the wiring of shared parts."""

from singleshot.detectors.detector import Detector
from singleshot.detectors.models import models
from singleshot.detectors.registry import BUILDERS, VARIANTS, create, find_builder, remembers_arguments
from singleshot.detectors.ssd import ssd
from singleshot.detectors.torchvision_labels import torchvision_labels

__all__ = [
    "BUILDERS",
    "VARIANTS",
    "Detector",
    "create",
    "find_builder",
    "models",
    "remembers_arguments",
    "ssd",
    "torchvision_labels",
]
