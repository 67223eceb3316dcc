"""Multi-scale testing: a detector looks at each image at several sizes, plain and mirrored, and the boxes are merged.

The "+" rows of the RefineDet paper, for any detector.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from singleshot.data.deep import DeepRange
from singleshot.detectors.detector import Detector
from singleshot.engines.exported import ExportedDetector
from singleshot.errors import UserError
from singleshot.eval_mode import evaluating
from singleshot.multiscale.views import MultiScale, View
from singleshot.ops.fit import Fit, LongestSide, ShortSide
from singleshot.ops.nms import nms
from singleshot.ops.voting import box_vote, soft_box_vote
from singleshot.postprocess import Postprocess, vary
from singleshot.preprocess import KeepAspect, Preprocess, Stretch
from singleshot.spec import Rule

Found = dict[str, Tensor]
"""Detections of one image: boxes [N, 4], scores [N], labels [N], in pixels of that image."""

_VARIED = ("threshold", "candidates", "nms", "detections")  # numbers of the post-processing that a recipe may set
_tally = threading.Lock()
_COARSE = 64  # pixels: usual detectors have no larger step between the input sizes that they take
_LARGEST = 4096  # pixels: the search for a size that fits ends here


class MultiScaleDetector:
    """A detector that sees every image in the views of a `MultiScale`. Calls and results are those of the detector.

    Only one view is in memory at a time, for as many images as fit into the pixels of a whole batch at the detector's
    own size (at least one image). Of earlier views only the boxes are kept. With a single pass there is nothing to
    merge, and the result is the detector's own; if the view has the detector's own size, it is equal bit for bit.

    `progress` is called with `seen`, the number of images x passes done, counted over all calls.

    An exported model is taken too if height and width of its input are free, and the recipe leaves its post-processing
    as it is.

    Raises `UserError` for a view that the detector cannot take, such as one that is too small for its last maps, and
    for an exported model that cannot do it.
    """

    def __init__(
        self,
        detector: Detector | ExportedDetector,
        recipe: MultiScale,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.detector, self.recipe = detector, recipe
        self.class_names, self.category_ids = detector.class_names, detector.category_ids
        # The lowest score that a soft vote keeps. It is the same number as for each view, as in the authors' script.
        if isinstance(detector, ExportedDetector):
            _refuse_fixed(detector, recipe)
            self._threshold = float((detector.spec.postprocess or {}).get("threshold", 0.0))
        else:
            self._postprocess = _postprocess(detector.postprocess, recipe)
            self._threshold = float(getattr(self._postprocess, "threshold", 0.0))
        self.progress, self.seen = progress, 0
        self._views: list[tuple[View, Preprocess, Preprocess]] = []  # for tall or square images, and for wide ones
        for number, view in enumerate(recipe.views, start=1):
            where = f"{recipe.name}, view {number} ({view})"
            both = tuple(preprocess_for(lain, detector.preprocess, where) for lain in _lain(view))
            for preprocess in both:
                if not isinstance(detector, ExportedDetector):
                    _check(detector, preprocess.size, where)
            self._views.append((view, both[0], both[-1]))

    @property
    def deep_range(self) -> DeepRange | None:
        """How grey images of more than 8 bits are read: as for the detector."""
        return self.detector.deep_range

    def __call__(self, images: Sequence[Tensor]) -> list[Found]:
        """Images [3, H, W], float in 0..1 or uint8, of any sizes -> {"boxes", "scores", "labels"} each, best first."""
        found: list[list[Found]] = [[] for _ in images]
        with evaluating(self.detector) as detector, torch.no_grad():
            for view, high, wide in self._views:
                for mirrored in (False, True) if self.recipe.mirror else (False,):
                    for places, preprocess in self._parts(images, high, wide):
                        seen = self._look(detector, [images[k] for k in places], preprocess, mirrored)
                        for k, own in zip(places, seen, strict=True):
                            found[k].append(_counting(own, view))
                        self._tell(len(places))
            return [self._merged(own) for own in found]

    def _parts(
        self, images: Sequence[Tensor], high: Preprocess, wide: Preprocess
    ) -> Iterator[tuple[list[int], Preprocess]]:
        """The images that the network sees at once: their indices, and how they are prepared."""
        pixels = len(images) * math.prod(self.detector.image_size)
        for places, preprocess in _together(images, high, wide):
            number = max(1, pixels // math.prod(preprocess.size))
            for start in range(0, max(1, len(places)), number):  # without images the detector says what it needs
                yield places[start : start + number], preprocess

    def _look(
        self, detector: Detector | ExportedDetector, images: list[Tensor], preprocess: Preprocess, mirrored: bool
    ) -> list[Found]:
        shown = [image.flip(-1) for image in images] if mirrored else images
        if isinstance(detector, ExportedDetector):
            found = detector(shown, rule=cast(Rule, preprocess))
        else:
            found = detector.detections(detector.raw(shown, preprocess=preprocess), self._postprocess)
        if not mirrored:
            return found
        return [
            {**own, "boxes": mirror(own["boxes"], image.shape[-1])} for own, image in zip(found, images, strict=True)
        ]

    def _merged(self, found: list[Found]) -> Found:
        if self.recipe.passes == 1:
            return found[0]
        boxes, scores, labels = (torch.cat([own[name] for own in found]) for name in ("boxes", "scores", "labels"))
        if self.recipe.merge == "nms":
            kept = nms(boxes, scores, labels, self.recipe.iou)
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        elif self.recipe.merge == "vote":
            boxes, scores, labels = box_vote(boxes, scores, labels, self.recipe.iou)
        else:
            boxes, scores, labels = soft_box_vote(boxes, scores, labels, self.recipe.iou, self._threshold)
        return {"boxes": boxes, "scores": scores, "labels": labels}

    def _tell(self, images: int) -> None:
        with _tally:  # several threads may use one detector
            self.seen = seen = self.seen + images
        if self.progress is not None:
            self.progress(seen)


def mirror(boxes: Tensor, width: float) -> Tensor:
    """Convert boxes [N, 4] of a mirrored image to boxes of the image itself: x becomes width - x."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], -1)


def _lain(view: View) -> list[View]:
    """The view for a tall (or square) image, and the view for a wide one if it is different."""
    if view.size is None or not view.turn:
        return [view]
    short, long = sorted(view.size)
    return [replace(view, size=(long, short)), replace(view, size=(short, long))]


def preprocess_for(view: View, own: Preprocess, where: str = "view") -> Preprocess:
    """A detector's own preparation of images, but at the size of a view. The view's `turn` is ignored here."""
    if view.size is not None:
        return Stretch((view.size[0], view.size[1]), own.pixels)
    if view.scale == 1:
        return own
    if isinstance(own, Stretch):
        height, width = (view.side, view.side) if view.side is not None else (_times(n, view) for n in own.size)
        return replace(own, size=(height, width))
    if isinstance(own, KeepAspect):
        return replace(own, fit=_fit_for(view, own.fit, where), jitter=None)
    raise UserError(f"{where}: a detector with {type(own).__name__} takes views with size, or of scale 1")


def _fit_for(view: View, own: Fit, where: str) -> Fit:
    if isinstance(own, LongestSide):
        return LongestSide(view.side if view.side is not None else _times(own.longest, view))
    if isinstance(own, ShortSide):
        short = view.side if view.side is not None else _times(own.short, view)
        return replace(own, short=short, longest=max(short, round(own.longest * short / own.short)))
    raise UserError(f"{where}: a detector with {type(own).__name__} takes views with size, or of scale 1")


def _times(side: int, view: View) -> int:
    return max(1, round(side * (view.scale or 1)))


def _refuse_fixed(model: ExportedDetector, recipe: MultiScale) -> None:
    """Raise `UserError` for an exported model that has one input size, or a post-processing that the recipe changes."""
    if model.spec.input_size is not None:
        height, width = model.spec.input_size
        raise UserError(
            f"{model.path}: its graph takes images of {height}x{width} only, and multi-scale testing (--tta) shows "
            "them at several sizes; give the .safetensors file from which it was exported"
        )
    fixed = [name for name in _VARIED if getattr(recipe, name) is not None]
    if fixed:
        raise UserError(
            f"{model.path}: {recipe.name} sets {', '.join(fixed)} of the post-processing, which is part of the graph "
            "of an exported model; take views without them, or give the .safetensors file from which it was exported"
        )


def _postprocess(own: Postprocess, recipe: MultiScale) -> Postprocess:
    """A detector's post-processing with the numbers that the recipe sets for each view."""
    for name in _VARIED:
        value = getattr(recipe, name)
        own = own if value is None else vary(own, name, value)
    return own


def _counting(found: Found, view: View) -> Found:
    """The boxes that count in a view, by their size."""
    if view.long_side_above is None and view.short_side_below is None:
        return found
    sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
    kept = torch.ones_like(found["scores"], dtype=torch.bool)
    if view.long_side_above is not None:
        kept &= sides.amax(1) > view.long_side_above
    if view.short_side_below is not None:
        kept &= sides.amin(1) < view.short_side_below
    return {name: part[kept] for name, part in found.items()}


def _together(images: Sequence[Tensor], high: Preprocess, wide: Preprocess) -> Iterator[tuple[list[int], Preprocess]]:
    """Groups of images that are prepared in the same way: their indices, and how."""
    if high == wide:
        yield list(range(len(images))), high
        return
    lies = [image.shape[-1] > image.shape[-2] for image in images]
    for preprocess, wanted in ((high, False), (wide, True)):
        places = [k for k, is_wide in enumerate(lies) if is_wide == wanted]
        if places:
            yield places, preprocess


def _check(detector: Detector, size: tuple[int, int], where: str) -> None:
    """Raise `UserError`, before anything is computed, if the network cannot take an input of (height, width)."""
    problem = _problem(detector, size)
    if problem is None:
        return
    said = f"{where}: the network cannot take an input of {size[0]}x{size[1]}: {problem}"
    side = _next_side(detector, min(size))
    hint = "" if side is None else f"; the next larger square that it can take is {side}x{side}"
    raise UserError(f"{said}{hint}. Change the size of the view, or leave it out")


def _problem(detector: Detector, size: tuple[int, int]) -> str | None:
    """Why the network cannot take an input of (height, width); None if it can."""
    small = min(size) < min(detector.image_size)
    vague = "it is too small for the last maps" if small else "the maps do not fit together"
    try:
        shapes = detector.map_shapes(size)
    except UserError as error:
        return str(error)
    except (RuntimeError, ValueError) as error:  # a kernel larger than its map, or a sum of maps of different sizes
        return f"{vague} ({str(error).splitlines()[0]})"
    if any(0 in shape for shape in shapes):
        return vague
    if len(set(shapes)) < len(shapes) and len(set(own := detector.map_shapes(detector.image_size))) == len(own):
        return f"{vague}: several of them would have the same size"
    return None


def _next_side(detector: Detector, side: int) -> int | None:
    """The side of the next larger square that the network can take, if there is one."""
    if _problem(detector, (side, side)) is None:
        return None
    tried = range((side // _COARSE + 1) * _COARSE, _LARGEST + 1, _COARSE)
    taken = next((n for n in tried if _problem(detector, (n, n)) is None), None)
    if taken is None:
        return None
    refused = max(side, taken - _COARSE)
    while taken - refused > 1:
        middle = (refused + taken) // 2
        refused, taken = (refused, middle) if _problem(detector, (middle, middle)) is None else (middle, taken)
    return taken
