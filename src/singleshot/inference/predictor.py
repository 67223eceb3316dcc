"""Runs a detector over files, folders and globs: in order, in batches, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from singleshot.data.deep import range_of
from singleshot.data.frames import file_frames
from singleshot.data.images import read_image
from singleshot.engines.exported import ExportedDetector
from singleshot.errors import UserError
from singleshot.inference.options import Choices, Options
from singleshot.inference.results import ResultFolder
from singleshot.inference.sources import Source, expand
from singleshot.paths import to_path
from singleshot.prediction import Prediction
from singleshot.reduced import seen_by
from singleshot.stream import Frame, counting, stream

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class DetectorLike(Protocol):
    """What a detector must have. A `Detector` has it, and any other object may have it too."""

    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]

    def __call__(self, images: list[Tensor]) -> Any:
        """Images, uint8 [3, H, W] RGB -> one {"boxes", "scores", "labels"} each, in pixels of that image."""


def detect(
    detector: DetectorLike,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    options: Options | None = None,
    **choices: Unpack[Choices],
) -> list[Prediction]:
    """Find objects in the images of files, folders (with subfolders) and globs: one `Prediction` per image, in order.

    Detections are kept if their score is at least `threshold` (default 0.3) and their class is one of `classes`
    (default: all), and only the best `top_k` per image. `out` is a folder for pictures with the boxes drawn, under the
    names of the images (paths below the given folder), and for a COCO results file `detections.json`. Source images are
    never overwritten. A folder that holds results already is refused, unless `overwrite` is set. Then they are
    replaced, and the pictures of the earlier run are removed.

    The network takes `batch_size` images (default 8) at a time, and `workers` threads (default 1) read ahead. With
    `skip_bad`, an image that cannot be read is skipped with a note in the log. All these choices may be given
    together as `options`; keywords given with it take precedence. `progress` is called with (images done, images)
    at the start and after every batch.

    Raises UserError for sources without images (see `sources.expand`), an unreadable image, an unknown class name, a
    number out of range, or an output folder that cannot be written. What was found before is then in `out`, and a note
    of the exception (`__notes__`) says where. So it is for any other exception, and after Ctrl-C.
    """
    return list(iterate(detector, sources, out=out, overwrite=overwrite, progress=progress, options=options, **choices))


def iterate(
    detector: DetectorLike,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    options: Options | None = None,
    **choices: Unpack[Choices],
) -> Iterator[Prediction]:
    """As `detect`, but yield each `Prediction` when it is ready. Only a batch of a large folder is in memory.

    Arguments are checked at the call, and each image when it is read. If you end the iteration early, `out` has what
    was found before.
    """
    chosen = replace(options or Options(), **choices)
    labels = chosen.labels(detector.class_names)
    found = expand(sources, without=None if out is None else to_path(out))
    folder = None if out is None else ResultFolder(out, found, overwrite=overwrite)
    return _run(detector, found, chosen, labels, folder, progress)


def _run(
    detector: DetectorLike,
    sources: list[Source],
    options: Options,
    labels: frozenset[int] | None,
    folder: ResultFolder | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Prediction]:
    skipped = 0

    def skip(error: UserError) -> None:
        nonlocal skipped
        skipped += 1
        _log.warning("skipped %s", error)

    def stop(error: UserError) -> None:
        error.add_note("--skip-bad (in Python skip_bad=True) leaves out images that cannot be read")
        try:
            raise error
        finally:
            del error  # its traceback refers to this stack frame: a cycle that would keep images alive

    # A single image that cannot be read leaves nothing to go on with.
    refuse = stop if len(sources) > 1 else None

    frames = file_frames(
        sources,
        workers=options.workers,
        ahead=2 * options.batch_size,
        skip=skip if options.skip_bad else refuse,
        deep_range=range_of(detector),
        seen=seen_by(detector),
    )
    with folder or nullcontext():
        tell = counting(progress, len(sources))
        pairs = stream(
            frames, _looking(detector), batch_size=options.batch_size, after=lambda done: tell(done + skipped)
        )
        with closing(pairs):
            for frame, found in pairs:
                prediction = _kept(_prediction(detector, frame, found), options, labels)
                if folder is not None and folder.is_new(frame.source):
                    folder.add(frame.source, draw(_picture(frame), prediction), prediction)
                yield prediction
        tell(len(sources))  # images that were skipped at the end are done too


def _looking(detector: DetectorLike) -> Callable[[list[Frame[Source]]], Sequence[Mapping[str, Any]]]:
    """What finds objects in a batch of frames. An exported detector takes arrays, and does not need PyTorch."""
    if isinstance(detector, ExportedDetector):
        return lambda batch: [
            dict(zip(("boxes", "scores", "labels"), one, strict=True))
            for one in detector.find([frame.pixels.transpose(1, 2, 0) for frame in batch])
        ]
    import torch

    from singleshot.eval_mode import evaluating

    def look(batch: list[Frame[Source]]) -> Sequence[Mapping[str, Tensor]]:
        with evaluating(detector) as used, torch.inference_mode():
            found: Sequence[Mapping[str, Tensor]] = used([frame.tensor() for frame in batch])
            return found

    return look


def _picture(frame: Frame[Source]) -> NDArray[np.uint8]:
    """The whole picture, for drawing. So what is found is the same with pictures and without."""
    return frame.picture() if frame.size == frame.pixels.shape[1:] else read_image(frame.source.path)


def draw(picture: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
    """Imports what draws when something is drawn: a run that only looks does not wait for it."""
    from singleshot.inference import draw as drawing

    return drawing.draw(picture, prediction)


def _prediction(detector: DetectorLike, frame: Frame[Source], found: Mapping[str, Any]) -> Prediction:
    return Prediction(
        frame.boxes(found["boxes"]),
        found["scores"],
        found["labels"],
        tuple(detector.class_names),
        tuple(detector.category_ids),
        frame.size,
        str(frame.source.path),
    )


def _kept(found: Prediction, options: Options, labels: frozenset[int] | None) -> Prediction:
    """The detections that the options keep, best first, as a copy."""
    scores, classes = found.scores_array, found.labels_array
    kept = scores >= np.float32(options.threshold)
    if labels is not None:
        kept &= np.isin(classes, list(labels))
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(-scores[rows], kind="stable")][: options.top_k]
    kept_rows = (found.boxes_array[rows], scores[rows], classes[rows])
    return Prediction(*kept_rows, found.class_names, found.category_ids, found.size, found.path)
