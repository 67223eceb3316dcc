"""A detector that was exported: what surrounds the network, and an engine's way to run it. Needs no PyTorch itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from singleshot.engines.engine import Run
from singleshot.errors import UserError
from singleshot.image_input import Picture, to_picture
from singleshot.prediction import Prediction
from singleshot.preprocess import arrays
from singleshot.preprocess.preprocess import by_input_size
from singleshot.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor


class ExportedDetector:
    """A model that detects, and does nothing else: it has no layers to train or to look into.

    It stands where a detector does in `singleshot.detect`, `detect_dataset` and in `predict`, and finds the same.

    Raises `UserError` for a model whose preparation of images is not one of this package.
    """

    def __init__(self, spec: Spec, run: Run, *, path: str = "") -> None:
        if spec.preprocess is None:
            raise UserError(
                f"{path}: does not say how images are prepared (the detector's own way has no name here); "
                "prepare them yourself and call the engine's run(pixels, limits)"
            )
        self.spec, self.run, self.path = spec, run, path
        self.class_names, self.category_ids = spec.class_names, spec.category_ids
        self.num_classes = len(spec.class_names)
        self._rule = spec.preprocess

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input; where it follows the image, the usual one."""
        return self.spec.input_size or self._rule.size

    def predict(self, source: Any, *, batch_size: int = 8) -> Prediction | list[Prediction]:
        """Find objects in a path, PIL image, array [H, W, 3] uint8 RGB, or tensor [3, H, W]; a list gives a list.

        At most `batch_size` images are shown to the network at a time, and never more than it takes.
        """
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        several = isinstance(source, list | tuple)
        found = []
        sources = list(source) if several else [source]
        for start in range(0, len(sources), batch_size):
            pictures = [to_picture(one) for one in sources[start : start + batch_size]]
            results = self.find([picture for picture, _ in pictures])
            for (picture, path), (boxes, scores, labels) in zip(pictures, results, strict=True):
                size = (picture.shape[0], picture.shape[1])
                found.append(Prediction(boxes, scores, labels, self.class_names, self.category_ids, size, path))
        return found if several else found[0]

    def __call__(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Images [3, H, W], uint8 or float in 0..1 -> boxes, scores and labels of each, as a `Detector` gives them."""
        import torch

        pictures = [cast(Picture, np.asarray(image.detach().cpu()).transpose(1, 2, 0)) for image in images]
        names = ("boxes", "scores", "labels")
        return [dict(zip(names, map(torch.from_numpy, one), strict=True)) for one in self.find(pictures)]

    def find(self, pictures: Sequence[Picture]) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Pictures [H, W, 3] RGB, uint8 or float in 0..1 -> boxes [N, 4] in pixels of each, scores [N], labels [N].

        Pictures of one input size go together, so that nobody is padded because of another.
        """
        if self.spec.input_size is not None:
            alike = {self.spec.input_size: list(range(len(pictures)))}
        else:
            alike = by_input_size(self._rule, [(picture.shape[0], picture.shape[1]) for picture in pictures])
        most = self.spec.batch[1] or len(pictures)
        found: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}
        for canvas, places in alike.items():
            for start in range(0, len(places), most):
                part = places[start : start + most]
                found.update(zip(part, self._batch([pictures[place] for place in part], canvas), strict=True))
        return [found[place] for place in range(len(pictures))]

    def _batch(
        self, pictures: list[Picture], canvas: tuple[int, int]
    ) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        filled = pictures + pictures[-1:] * (self.spec.batch[0] - len(pictures))  # for graphs of a fixed batch
        batch = arrays.prepared(self._rule, filled, canvas)
        boxes, scores, labels = self.run(batch.pixels, batch.limits)
        boxes, scores = arrays.restored(boxes, scores, batch, padded=self._rule.padded)
        there = scores > 0
        return [
            (boxes[i][there[i]], scores[i][there[i]], labels[i][there[i]].astype(np.int64, copy=False))
            for i in range(len(pictures))
        ]
