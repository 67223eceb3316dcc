"""The measurements of a trained detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import singleshot as ss
from pairs.experiment import ArmView
from singleshot.evaluation.detect_dataset import detect_dataset, detect_with_each
from singleshot.multiscale.detector import MultiScaleDetector
from singleshot.multiscale.views import MultiScale
from singleshot.postprocess import Postprocess, vary
from singleshot.training.recipe import Recipe

# Names of numbers in views that were recorded before `vary` gave these numbers its own names.
_OLDER = {"alpha": "iou_alpha"}


def measure(
    weights: Path, recipe: Recipe, views: Mapping[str, ArmView]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All metrics of a weights file on the validation split, and those of each view; the network runs in float32.

    It runs once for its own metrics and for all views with other numbers together, and once for each multi-scale view.
    """
    detector = ss.load(weights).eval()
    dataset = ss.open_dataset(
        recipe.data.val_path or recipe.data.path or "",
        split=recipe.data.val_split,
        format=recipe.data.format,
        class_names=detector.class_names,
    )
    numbers = {name: view for name, view in views.items() if not isinstance(view, MultiScale)}
    ranked = [detector.postprocess, *(viewed(detector.postprocess, view) for view in numbers.values())]
    plain, *others = detect_with_each(detector, dataset, ranked)
    found = dict(zip(numbers, others, strict=True))
    for name, view in views.items():
        if isinstance(view, MultiScale):
            found[name] = detect_dataset(MultiScaleDetector(detector, view), dataset)
    return _metrics(ss.evaluate(dataset, plain)), {name: _metrics(ss.evaluate(dataset, found[name])) for name in views}


def viewed(postprocess: Postprocess, numbers: Mapping[str, float | None]) -> Postprocess:
    """The same post-processing with other numbers, by the names of `singleshot.postprocess.vary`.

    Raises:
        UserError: in the cases of `vary`.
    """
    for name, value in numbers.items():
        postprocess = vary(postprocess, _OLDER.get(name, name), value)
    return postprocess


def _metrics(metrics: ss.Metrics) -> dict[str, Any]:
    return {**metrics.to_json(), "coco_iou": metrics.coco.by_iou}
