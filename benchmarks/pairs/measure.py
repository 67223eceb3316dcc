"""What is measured of a trained detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import singleshot as ss
from singleshot.errors import UserError
from singleshot.evaluation.run import run
from singleshot.postprocess import Postprocess
from singleshot.training.recipe import Recipe

IOUS = range(50, 100, 5)


def measure(
    weights: Path, recipe: Recipe, views: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All metrics of a file on the validation split, and those of each view; the network in float32."""
    detector = ss.load(weights).eval()
    dataset = ss.open_dataset(
        recipe.data.val_path or recipe.data.path or "",
        split=recipe.data.val_split,
        format=recipe.data.format,
        class_names=detector.class_names,
    )
    found = {}
    for name, changes in {"": {}, **views}.items():
        postprocess = viewed(detector.postprocess, changes)

        def detect(images: list[Tensor], postprocess: Postprocess = postprocess) -> list[dict[str, Tensor]]:
            return detector.detections(detector.raw(images), postprocess)

        metrics = ss.evaluate(dataset, run(detect, dataset, workers=1))
        found[name] = {**metrics.to_json(), "coco_iou": by_iou(metrics)}
    return found.pop(""), found


def viewed(postprocess: Postprocess, changes: Mapping[str, Any]) -> Postprocess:
    """The same post-processing with other fields of its scores."""
    if not changes:
        return postprocess
    scores = postprocess.scores
    if not is_dataclass(scores) or isinstance(scores, type) or not is_dataclass(postprocess):
        raise UserError(f"these scores have no fields to change: {scores!r}")
    unknown = set(changes) - {field.name for field in fields(scores)}
    if unknown:
        raise UserError(f"{type(scores).__name__} has no {', '.join(sorted(unknown))}")
    changed: Postprocess = replace(postprocess, scores=replace(scores, **changes))
    return changed


def by_iou(metrics: ss.Metrics) -> dict[str, float]:
    """COCO's AP at each IoU threshold: {"AP50": ..., ..., "AP95": ...}; -1 where there is nothing to find."""
    found = {}
    for overlap, precision in zip(IOUS, metrics.coco.precision, strict=True):
        known = precision[precision > -1]
        found[f"AP{overlap}"] = float(np.mean(known)) if known.size else -1.0
    return found
