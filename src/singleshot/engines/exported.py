"""An exported detector: a `Spec`, and an engine's function that runs the network. Itself it does not need PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from singleshot.data.deep import DeepRange
from singleshot.engines.engine import Run
from singleshot.errors import UserError
from singleshot.image_input import Given, Picture, refuse_values, to_picture
from singleshot.prediction import Prediction
from singleshot.preprocess import arrays
from singleshot.preprocess.preprocess import by_input_size
from singleshot.spec import Rule, Spec
from singleshot.stream import stream

if TYPE_CHECKING:
    from torch import Tensor


class ExportedDetector:
    """A model that can only detect: it has no layers to train or to inspect.

    It can replace a detector in `singleshot.detect`, `detect_dataset` and `predict`, and finds the same objects.

    Raises `UserError` for a model whose preparation of images is not part of this package.
    """

    def __init__(self, spec: Spec, run: Run, *, path: str = "") -> None:
        if spec.preprocess is None:
            raise UserError(
                f"{path}: does not say how images are prepared (its preparation is not part of this package); "
                "prepare the images yourself and call the engine's run(images, limits)"
            )
        self.spec, self.run, self.path = spec, run, path
        self.class_names, self.category_ids = spec.class_names, spec.category_ids
        self.num_classes = len(spec.class_names)
        self._rule = spec.preprocess

    @property
    def deep_range(self) -> DeepRange | None:
        """How grey images of more than 8 bits are read: as in training."""
        return self.spec.deep_range

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input; the usual one if it depends on the image."""
        return self.spec.input_size or self._rule.size

    def seen_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image -> those to which it is resized for the network: no more needs to be decoded."""
        return self._rule.layout([size])[0][0]

    def predict(self, source: Any, *, batch_size: int = 8) -> Prediction | list[Prediction]:
        """Find objects in a path, PIL image, array [H, W, 3] uint8 RGB, or tensor [3, H, W]; a list gives a list.

        The network gets at most `batch_size` images at a time, and never more than it accepts.
        """
        several = isinstance(source, list | tuple)
        pictures = (to_picture(one, self.deep_range, seen=self.seen_size) for one in (source if several else (source,)))
        found = [prediction for _, prediction in stream(pictures, self._predict, batch_size=batch_size)]
        return found if several else found[0]

    def _predict(self, batch: list[Given[Picture]]) -> list[Prediction]:
        """Pictures -> what is found in each."""
        results = self.find([picture.pixels for picture in batch])
        predictions = []
        for picture, (boxes, scores, labels) in zip(batch, results, strict=True):
            found = picture.reduced.boxes(boxes), scores, labels
            where = picture.reduced.size, picture.path
            predictions.append(Prediction(*found, self.class_names, self.category_ids, *where))
        return predictions

    @property
    def preprocess(self) -> Rule:
        """How images are prepared."""
        return self._rule

    def __call__(self, images: Sequence[Tensor], *, rule: Rule | None = None) -> list[dict[str, Tensor]]:
        """Images [3, H, W], uint8 or float in 0..1 -> boxes, scores and labels of each, as from a `Detector`.

        `rule` prepares the images in place of the model's own, for graphs whose input size is free.
        """
        import torch

        pictures = [cast(Picture, np.asarray(image.detach().cpu()).transpose(1, 2, 0)) for image in images]
        names = ("boxes", "scores", "labels")
        return [dict(zip(names, map(torch.from_numpy, one), strict=True)) for one in self.find(pictures, rule=rule)]

    def find(
        self, pictures: Sequence[Picture], *, rule: Rule | None = None
    ) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Pictures [H, W, 3] RGB, uint8 or float in 0..1 -> boxes [N, 4] in pixels of each, scores [N], labels [N].

        Pictures of the same input size are batched, so that no picture is padded because of another.
        """
        rule = rule or self._rule
        for place, picture in enumerate(pictures):
            if picture.dtype != np.uint8 and picture.size:
                refuse_values(float(picture.min()), float(picture.max()), f"image {place}: ")
        if self.spec.input_size is not None:
            alike = {self.spec.input_size: list(range(len(pictures)))}
        else:
            alike = by_input_size(rule, [(picture.shape[0], picture.shape[1]) for picture in pictures])
        most = self.spec.batch[1] or len(pictures)
        found: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}
        for canvas, places in alike.items():
            for start in range(0, len(places), most):
                part = places[start : start + most]
                found.update(zip(part, self._batch([pictures[place] for place in part], canvas, rule), strict=True))
        return [found[place] for place in range(len(pictures))]

    def _batch(
        self, pictures: list[Picture], canvas: tuple[int, int], rule: Rule
    ) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        filled = pictures + pictures[-1:] * (self.spec.batch[0] - len(pictures))  # for graphs with a fixed batch
        prepare = arrays.prepared if self.spec.input == "pixels" else arrays.arranged
        batch = prepare(rule, filled, canvas)
        boxes, scores, labels = self._checked(*self.run(batch.pixels, batch.limits), number=len(filled))
        boxes, scores = arrays.restored(boxes, scores, batch, padded=rule.padded)
        there = scores > 0
        return [
            (boxes[i][there[i]], scores[i][there[i]], labels[i][there[i]].astype(np.int64, copy=False))
            for i in range(len(pictures))
        ]

    def _checked(
        self, boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], *, number: int
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The results of a run, if they are what a spec stands for: a file may have been changed."""
        where = f"{self.path}: its graph" if self.path else "the graph"
        told = f"{list(boxes.shape)}, {list(scores.shape)} and {list(labels.shape)}"
        if boxes.shape != (*scores.shape, 4) or labels.shape != scores.shape or scores.ndim != 2:
            raise UserError(f"{where} gives {told}, expected boxes [B, D, 4], scores [B, D] and labels [B, D]")
        if len(scores) != number:
            raise UserError(f"{where} gives results for {len(scores)} images, but it got {number}; export it again")
        if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise UserError(
                f"{where} gives labels from {labels.min()} to {labels.max()}, but it has {self.num_classes} classes; "
                "export it again"
            )
        for name, values in (("boxes", boxes), ("scores", scores)):
            if not np.isfinite(values).all():
                raise UserError(f"{where} gives {name} that are not numbers; export it again")
        return boxes, scores, labels
