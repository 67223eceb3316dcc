"""Single-stage object detection on plain PyTorch: train on your own boxes, measure, detect.

```python
import singleshot as ss

detector = ss.load("runs/cells/best.safetensors")
found = detector.predict("image.jpg")
```

Everything below is imported when it is first asked for, so that `import singleshot` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from singleshot.version import __version__ as __version__

if TYPE_CHECKING:
    from singleshot import analysis as analysis
    from singleshot import recipes as recipes
    from singleshot.benchmarking import benchmark as benchmark
    from singleshot.catalogue import download as download
    from singleshot.data.check import check as check
    from singleshot.data.dataset import Dataset as Dataset
    from singleshot.data.images import read_image as read_image
    from singleshot.data.open import open_dataset as open_dataset
    from singleshot.detectors import create as create
    from singleshot.detectors.detector import Detector as Detector
    from singleshot.detectors.iou_retinanet import iou_retinanet as iou_retinanet
    from singleshot.detectors.refinedet import refinedet as refinedet
    from singleshot.detectors.retinanet import retinanet as retinanet
    from singleshot.detectors.settle import settle_norm as settle_norm
    from singleshot.detectors.ssd import ssd as ssd
    from singleshot.detectors.torchvision_labels import torchvision_labels as torchvision_labels
    from singleshot.engines import load as load
    from singleshot.errors import UserError as UserError
    from singleshot.evaluation.detections import ImageDetections as ImageDetections
    from singleshot.evaluation.metrics import Metrics as Metrics
    from singleshot.evaluation.metrics import evaluate as evaluate
    from singleshot.exporting.export import NotTheSame as NotTheSame
    from singleshot.exporting.export import export as export
    from singleshot.inference.draw import draw as draw
    from singleshot.inference.predictor import detect as detect
    from singleshot.prediction import Prediction as Prediction
    from singleshot.structures import Detections as Detections
    from singleshot.structures import Targets as Targets
    from singleshot.training import TrainResult as TrainResult
    from singleshot.training import train as train
    from singleshot.training.recipe import Recipe as Recipe
    from singleshot.weights.checkpoint import save as save
    from singleshot.weights.importers import import_weights as import_weights

# Public name -> the module that defines it; None where the name is itself a module of the package.
_WHERE: dict[str, str | None] = {
    "Dataset": "singleshot.data.dataset",
    "Detections": "singleshot.structures",
    "Detector": "singleshot.detectors.detector",
    "ImageDetections": "singleshot.evaluation.detections",
    "Metrics": "singleshot.evaluation.metrics",
    "NotTheSame": "singleshot.exporting.export",
    "Prediction": "singleshot.prediction",
    "Recipe": "singleshot.training.recipe",
    "Targets": "singleshot.structures",
    "TrainResult": "singleshot.training",
    "UserError": "singleshot.errors",
    "analysis": None,
    "benchmark": "singleshot.benchmarking",
    "check": "singleshot.data.check",
    "create": "singleshot.detectors",
    "detect": "singleshot.inference.predictor",
    "download": "singleshot.catalogue",
    "draw": "singleshot.inference.draw",
    "evaluate": "singleshot.evaluation.metrics",
    "export": "singleshot.exporting.export",
    "import_weights": "singleshot.weights.importers",
    "iou_retinanet": "singleshot.detectors.iou_retinanet",
    "load": "singleshot.engines",
    "open_dataset": "singleshot.data.open",
    "read_image": "singleshot.data.images",
    "recipes": None,
    "refinedet": "singleshot.detectors.refinedet",
    "retinanet": "singleshot.detectors.retinanet",
    "save": "singleshot.weights.checkpoint",
    "settle_norm": "singleshot.detectors.settle",
    "ssd": "singleshot.detectors.ssd",
    "torchvision_labels": "singleshot.detectors.torchvision_labels",
    "train": "singleshot.training",
}

__all__ = [  # noqa: RUF022 (kept equal to the table above by a test)
    "__version__",
    "Dataset",
    "Detections",
    "Detector",
    "ImageDetections",
    "Metrics",
    "NotTheSame",
    "Prediction",
    "Recipe",
    "Targets",
    "TrainResult",
    "UserError",
    "analysis",
    "benchmark",
    "check",
    "create",
    "detect",
    "download",
    "draw",
    "evaluate",
    "export",
    "import_weights",
    "iou_retinanet",
    "load",
    "open_dataset",
    "read_image",
    "recipes",
    "refinedet",
    "retinanet",
    "save",
    "settle_norm",
    "ssd",
    "torchvision_labels",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'singleshot' has no attribute {name!r}")
    where = _WHERE[name]
    value = (
        importlib.import_module(f"singleshot.{name}")
        if where is None
        else getattr(importlib.import_module(where), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
