"""The results of a run over images: plain data for JSON, and a folder with pictures and a COCO results file."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from singleshot.errors import UserError
from singleshot.evaluation.coco_results import RESULTS_NAME, ResultsText, coco_entries
from singleshot.evaluation.detections import as_sides
from singleshot.files import write_atomically
from singleshot.inference.sources import Source
from singleshot.prediction import Prediction

PARTIAL_NAME = "detections.partial.json"

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def to_json(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Plain data, one entry per image. Boxes are [x1, y1, x2, y2] in pixels of the image, best first."""
    return [
        {
            "image": prediction.path,
            "width": prediction.size[1],
            "height": prediction.size[0],
            "detections": [
                {
                    "box": box,
                    "score": score,
                    "label": label,
                    "name": name,
                    "category_id": prediction.category_ids[label],
                }
                for box, score, label, name in zip(
                    prediction.boxes_array.tolist(),
                    prediction.scores_array.tolist(),
                    prediction.labels_array.tolist(),
                    prediction.names,
                    strict=True,
                )
            ],
        }
        for prediction in predictions
    ]


def to_coco(prediction: Prediction, image_id: str) -> list[dict[str, Any]]:
    """Entries of a COCO results file: `bbox` [x, y, width, height] in pixels, `category_id` as in the training data."""
    entries = coco_entries(
        image_id,
        prediction.category_ids,
        labels=prediction.labels_array,
        sides=as_sides(prediction.boxes_array.astype(np.float64)),
        scores=prediction.scores_array,
    )
    return list(entries)


class ResultFolder:
    """A folder of drawn pictures, under the names of the images, with one COCO results file.

    JPEG and PNG images give pictures of the same format and name; other images give NAME.png. The results file is
    `detections.json`. Its image ids are the names without suffix (with suffix if two images share the rest). During the
    run the file is called `detections.partial.json`. It keeps this name if the run is interrupted, and is valid JSON
    with complete entries. An image that was given twice is written once.

    Raises UserError, before anything is written, if a picture would overwrite an image that is read, or a file that no
    earlier run wrote. Raises it also if the folder cannot be written.
    """

    def __init__(self, folder: str | Path, sources: Sequence[Source]) -> None:
        self.folder = Path(folder)
        files = {os.path.abspath(source.path): source.name for source in sources}
        self._pictures = dict(zip(files, _picture_names(files.values()), strict=True))
        self._ids = dict(zip(files, _image_ids(files.values()), strict=True))
        self._written: set[str] = set()
        self._refuse_overwriting()

    def __enter__(self) -> ResultFolder:
        partial = self.folder / PARTIAL_NAME
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with _writing(partial):
            # A name that is not UTF-8 is written with JSON's escapes; `os.fsencode` of what is read back is the name.
            self._file = partial.open("w", encoding="utf-8", errors="backslashreplace")
            self._text = ResultsText(self._file)
        return self

    def is_new(self, source: Source) -> bool:
        """Whether the image has not been written yet."""
        return os.path.abspath(source.path) not in self._written

    def add(self, source: Source, picture: NDArray[np.uint8], prediction: Prediction) -> None:
        """Write the picture and the entries of one image."""
        key = os.path.abspath(source.path)
        self._written.add(key)
        target = self.folder / self._pictures[key]
        content = io.BytesIO()
        kind = _FORMATS.get(target.suffix.lower(), "PNG")
        # Colour at full resolution: JPEG usually halves it, which blurs thin coloured lines and letters.
        options: dict[str, Any] = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {"compress_level": 3}
        with _writing(target):
            Image.fromarray(picture).save(content, kind, **options)
            write_atomically(target, content.getvalue())
        with _writing(self.folder / PARTIAL_NAME):
            self._text.add(to_coco(prediction, self._ids[key]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        partial = self.folder / PARTIAL_NAME
        try:
            with _writing(partial), self._file:
                self._text.end()
            if kind is None:
                with _writing(self.folder / RESULTS_NAME):
                    os.replace(partial, self.folder / RESULTS_NAME)
        except UserError:
            if kind is None:  # otherwise the first error is reported
                raise

    def _refuse_overwriting(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file, but the pictures need a folder; choose another name")
        standing = [self.folder / name for name in self._pictures.values() if os.path.lexists(self.folder / name)]
        if not standing:
            return
        inputs = {_identity(Path(path)) for path in self._pictures}
        for path in standing:
            if path.exists() and _identity(path) in inputs:
                raise UserError(
                    f"the picture {path} would overwrite one of the source images; choose another output folder"
                )
        if not any((self.folder / name).exists() for name in (RESULTS_NAME, PARTIAL_NAME)):
            raise UserError(
                f"{self.folder} holds {len(standing)} files that would be overwritten, such as {standing[0].name}, and "
                f"no {RESULTS_NAME} that shows that they come from an earlier run; choose another output folder"
            )


def _picture_names(names: Iterable[str]) -> list[str]:
    taken: set[str] = set()
    pictures: list[str] = []
    for name in names:
        picture = PurePosixPath(name if PurePosixPath(name).suffix.lower() in _FORMATS else f"{name}.png")
        while str(picture).casefold() in taken:
            picture = picture.with_stem(f"{picture.stem}_")
        taken.add(str(picture).casefold())
        pictures.append(str(picture))
    return pictures


def _image_ids(names: Iterable[str]) -> list[str]:
    whole = list(names)
    stems = [str(PurePosixPath(name).with_suffix("")) for name in whole]
    counts = Counter(stems)
    taken = set(whole)
    return [stem if counts[stem] == 1 and stem not in taken else name for name, stem in zip(whole, stems, strict=True)]


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:  # a full disk, no permission, or a size that the format does not support
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be written: {reason}; free some space, get permission, or choose another output folder"
        ) from error
