"""`--tta NAME|FILE` of `singleshot evaluate` and `singleshot detect`: multi-scale testing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from singleshot.cli.progress import shown

if TYPE_CHECKING:
    from singleshot.data.dataset import Dataset
    from singleshot.detectors.detector import Detector
    from singleshot.evaluation.detections import ImageDetections
    from singleshot.evaluation.views import MultiScale
    from singleshot.inference.tta import MultiScaleDetector

HELP = "multi-scale testing: refinedet320_voc, ... or a YAML file of views"


def multi_scale(detector: Detector, recipe: MultiScale) -> MultiScaleDetector:
    """The detector that sees every image in several views; says on stderr how many."""
    from singleshot.inference.tta import MultiScaleDetector

    made = MultiScaleDetector(detector, recipe)
    views = f"{len(recipe.views)} view{'s' if len(recipe.views) > 1 else ''}{', each mirrored too' * recipe.mirror}"
    print(f"multi-scale testing {recipe.name!r}: {views}; passes for each image: {recipe.passes}", file=sys.stderr)
    return made


def run(
    detector: Detector, recipe: MultiScale, dataset: Dataset, *, batch_size: int, workers: int
) -> list[ImageDetections]:
    """Detect in every image of a dataset, with a bar that counts images x passes."""
    from singleshot.evaluation.run import run as run_detector

    many = multi_scale(detector, recipe)
    total = len(dataset) * recipe.passes
    with shown("images x views") as bar:
        if bar is not None:
            many.progress = lambda done: bar(done, total)
        return run_detector(many, dataset, batch_size=batch_size, workers=workers)
