"""Run a detector over files, folders and globs: in order, in batches, without filling the memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from singleshot.data.images import read_image
from singleshot.errors import UserError, did_you_mean, in_brackets
from singleshot.eval_mode import evaluating
from singleshot.inference.draw import draw
from singleshot.inference.results import ResultFolder
from singleshot.inference.sources import Source, expand
from singleshot.prediction import Prediction

_log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]


class DetectorLike(Protocol):
    """What is asked of a detector: a `Detector` has it, and anything else may."""

    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]

    def __call__(self, images: list[Tensor]) -> Any:
        """Images, uint8 [3, H, W] RGB -> one {"boxes", "scores", "labels"} each, in pixels of that image."""


@dataclass(frozen=True)
class _Choice:
    """Which detections are kept."""

    threshold: float
    labels: frozenset[int] | None  # None: all
    top_k: int | None

    def __call__(self, found: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, labels = (found[name].detach().cpu() for name in ("boxes", "scores", "labels"))
        kept = scores >= self.threshold
        if self.labels is not None:
            kept &= torch.isin(labels, torch.tensor(sorted(self.labels), dtype=labels.dtype))
        order = scores.masked_fill(~kept, -1).argsort(descending=True, stable=True)[: int(kept.sum())]
        order = order[: self.top_k]
        return boxes[order], scores[order], labels[order]


def detect(
    detector: DetectorLike,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    threshold: float = 0.3,
    batch_size: int = 8,
    classes: Sequence[str] | None = None,
    top_k: int | None = None,
    workers: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Find objects in the images of files, folders (to the bottom) and globs: one `Prediction` per image, in order.

    Kept are detections with at least the `threshold` score, of the `classes` named (default: all), at most the best
    `top_k` per image. `out` is a folder for pictures with the boxes drawn, under the names of the images (paths below
    the folder that was given), and a COCO results file `detections.json`; images that are read are never overwritten.
    `workers` threads read ahead. With `skip_bad` an image that cannot be read is left out with a note in the log.
    `progress` is called with (images done, images) at the start and after every batch.

    Raises UserError for sources without images (see `sources.expand`), an unreadable image, an unknown class name, a
    number outside of its range, or an output folder that cannot be written; what was found until then is in `out`.
    """
    return list(
        iterate(
            detector,
            sources,
            out=out,
            threshold=threshold,
            batch_size=batch_size,
            classes=classes,
            top_k=top_k,
            workers=workers,
            skip_bad=skip_bad,
            progress=progress,
        )
    )


def iterate(
    detector: DetectorLike,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    threshold: float = 0.3,
    batch_size: int = 8,
    classes: Sequence[str] | None = None,
    top_k: int | None = None,
    workers: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Prediction]:
    """As `detect`, but gives each `Prediction` when it is ready: of a folder of any size only a batch is in memory.

    Arguments are checked at the call, images when their turn comes. Ending the iteration early leaves what was found
    until then in `out`.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"the threshold must be between 0 and 1, got {threshold}")
    for name, value, least in (("batch_size", batch_size, 1), ("top_k", top_k, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
    choice = _Choice(threshold, _labels(classes, detector.class_names), top_k)
    found = expand(sources, without=None if out is None else Path(out))
    folder = None if out is None else ResultFolder(out, found)
    return _run(detector, found, choice, folder, batch_size, workers, skip_bad, progress)


def _run(
    detector: DetectorLike,
    sources: list[Source],
    choice: _Choice,
    folder: ResultFolder | None,
    batch_size: int,
    workers: int,
    skip_bad: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Prediction]:
    batch: list[tuple[Source, Picture]] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(detector))
        if folder is not None:
            stack.enter_context(folder)
        pictures = stack.enter_context(_reading(sources, workers, 2 * batch_size))
        if progress is not None:
            progress(0, len(sources))
        for done, (source, read) in enumerate(pictures, start=1):
            stopping = read if isinstance(read, UserError) and not skip_bad else None
            if not isinstance(read, UserError):
                batch.append((source, read))
            elif skip_bad:
                _log.warning("skipped %s", read)
            if len(batch) == batch_size or stopping or done == len(sources):
                for (its_source, picture), prediction in zip(batch, _predict(detector, batch, choice), strict=True):
                    if folder is not None and folder.is_new(its_source):
                        folder.add(its_source, draw(picture, prediction), prediction)
                    yield prediction
                batch = []
                if progress is not None:
                    progress(done, len(sources))
            if stopping:  # after the images before it
                raise stopping


def _predict(detector: DetectorLike, batch: list[tuple[Source, Picture]], choice: _Choice) -> list[Prediction]:
    if not batch:
        return []
    images = [torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))) for _, picture in batch]
    with torch.inference_mode():
        results = detector(images)
    predictions = []
    for (source, picture), found in zip(batch, results, strict=True):
        boxes, scores, labels = (tensor.clone() for tensor in choice(found))  # ordinary tensors, not of inference mode
        names, ids = tuple(detector.class_names), tuple(detector.category_ids)
        size = (picture.shape[0], picture.shape[1])
        predictions.append(Prediction(boxes, scores, labels, names, ids, size, str(source.path)))
    return predictions


@contextmanager
def _reading(sources: list[Source], workers: int, ahead: int) -> Iterator[Iterator[tuple[Source, Picture | UserError]]]:
    """The images in order, at most `ahead` of them waiting; what cannot be read comes as its error."""
    if workers == 0:
        yield ((source, _read(source)) for source in sources)
        return
    # Threads: decoding and resizing leave the interpreter free, and nothing has to be copied between processes.
    pool = ThreadPoolExecutor(workers, thread_name_prefix="singleshot-read")
    try:
        yield _in_order(sources, pool, max(ahead, workers))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    sources: list[Source], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[Source, Picture | UserError]]:
    waiting: deque[tuple[Source, Future[Picture | UserError]]] = deque()
    for source in sources:
        waiting.append((source, pool.submit(_read, source)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _read(source: Source) -> Picture | UserError:
    try:
        return read_image(source.path)
    except UserError as error:
        return error


def _labels(classes: Sequence[str] | None, class_names: Sequence[str]) -> frozenset[int] | None:
    if classes is None:
        return None
    wanted = [classes] if isinstance(classes, str) else list(classes)
    if not wanted:
        raise UserError("no class was named; name at least one, or leave the option out for all of them")
    for name in wanted:
        if name not in class_names:
            hint = in_brackets(did_you_mean(str(name), class_names, number=1, show=repr))
            shown = ", ".join(class_names[:100]) + (", ..." if len(class_names) > 100 else "")
            raise UserError(f"the detector knows no class {name!r}{hint}; its classes are: {shown}")
    return frozenset(label for label, name in enumerate(class_names) if name in wanted)
