"""`--tta NAME|FILE` of `singleshot evaluate` and `singleshot detect`: multi-scale testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singleshot.cli import progress
from singleshot.terminal import say

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector
    from singleshot.engines.exported import ExportedDetector
    from singleshot.multiscale.detector import MultiScaleDetector
    from singleshot.multiscale.views import MultiScale

HELP = "multi-scale testing: refinedet320_voc, ... or a YAML file of views"


def views_of(name: str) -> MultiScale:
    """The views of a name, or of a YAML file."""
    from singleshot.multiscale.published import load

    return load(name)


def multi_scale(detector: Detector | ExportedDetector, recipe: MultiScale) -> MultiScaleDetector:
    """The detector that sees every image in several views. Prints the number of views on stderr."""
    from singleshot.multiscale.detector import MultiScaleDetector

    made = MultiScaleDetector(detector, recipe)
    views = f"{len(recipe.views)} view{'s' if len(recipe.views) > 1 else ''}{', each mirrored too' * recipe.mirror}"
    say(f"multi-scale testing {recipe.name!r}: {views}; passes for each image: {recipe.passes}")
    return made


@contextmanager
def shown(many: MultiScaleDetector | None) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar of images or, with multi-scale testing, of images x views; see `singleshot.cli.progress.shown`."""
    with progress.shown("images" if many is None else "images x views") as bar:
        yield bar if many is None or bar is None else _counting(many, bar)


def _counting(many: MultiScaleDetector, bar: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """The progress callback of a run over images, for a bar that moves with every view of every batch."""
    passes = many.recipe.passes
    before, seen, total = 0, 0, 0  # passes: of the finished images; made until then; of all images

    def viewed(made: int) -> None:
        bar(before + made - seen, total)

    def images(done: int, count: int) -> None:
        nonlocal before, seen, total
        before, seen, total = done * passes, many.seen, count * passes
        bar(before, total)

    many.progress = viewed
    return images
