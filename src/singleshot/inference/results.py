"""The results of a run over images: plain data for JSON, and a folder with pictures and a COCO results file."""

from __future__ import annotations

import contextlib
import io
import json
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

from singleshot.errors import UserError, shown
from singleshot.evaluation.coco_results import RESULTS_NAME, ResultsText, coco_entries
from singleshot.evaluation.detections import as_sides
from singleshot.files import write_atomically
from singleshot.inference.sources import Source
from singleshot.paths import to_path
from singleshot.prediction import Prediction

PARTIAL_NAME = "detections.partial.json"
LIST_NAME = ".detections"  # the pictures of a run, one JSON text per line: what `overwrite` may remove

_LONGEST = 240  # bytes of a file's name; disks take 255, and two pictures of one name get longer ones

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
    with complete entries. The exception that interrupts it gets a note that says so. An image that was given twice is
    written once. `.detections` lists the pictures.

    Raises UserError, before anything is written, if the folder holds results already, or a file under the name of a
    picture. With `overwrite`, such files are replaced, and the pictures of the earlier run are removed, so that the
    folder holds one run. No other file is touched, and never an image that is read. Raises UserError also if the folder
    cannot be written.
    """

    def __init__(self, folder: str | Path, sources: Sequence[Source], *, overwrite: bool = False) -> None:
        self.folder = to_path(folder)
        files = {os.path.abspath(source.path): source.name for source in sources}
        self._pictures = dict(zip(files, _picture_names(files.values()), strict=True))
        self._ids = dict(zip(files, _image_ids(files.values()), strict=True))
        self._written: set[str] = set()
        self._complete = 0  # images whose entries are in the file
        self._old = self._standing(overwrite)

    def __enter__(self) -> ResultFolder:
        partial = self.folder / PARTIAL_NAME
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_old()
        with _writing(partial):
            # A name that is not UTF-8 is written with JSON's escapes; `os.fsencode` of what is read back is the name.
            self._file = partial.open("w", encoding="utf-8", errors="backslashreplace")
            self._text = ResultsText(self._file)
        with _writing(self.folder / LIST_NAME):
            self._list = (self.folder / LIST_NAME).open("w", encoding="ascii")
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
        with _writing(self.folder / LIST_NAME):  # first: after a kill the list has every picture that there is
            self._list.write(f"{json.dumps(self._pictures[key])}\n")
            self._list.flush()
        with _writing(target):
            Image.fromarray(picture).save(content, kind, **options)
            write_atomically(target, content.getvalue())
        with _writing(self.folder / PARTIAL_NAME):
            self._text.add(to_coco(prediction, self._ids[key]))
        self._complete += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        partial = self.folder / PARTIAL_NAME
        try:
            with _writing(self.folder / LIST_NAME):
                self._list.close()
            with _writing(partial), self._file:
                self._text.end()
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None:
                with _writing(self.folder / RESULTS_NAME):
                    os.replace(partial, self.folder / RESULTS_NAME)
            if error is not None:
                images = "1 image" if self._complete == 1 else f"{self._complete} images"
                error.add_note(f"what was found so far is in {shown(partial)} ({images})")
        except UserError:
            if kind is None:  # otherwise the first error is reported
                raise

    def _standing(self, overwrite: bool) -> list[Path]:
        """The files of an earlier run, or under the names of this one, that have to go first."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{shown(self.folder)} is a file, but the pictures need a folder; choose another name")
        for parent in {self.folder / PurePosixPath(name).parent for name in self._pictures.values()}:
            if parent.exists() and not parent.is_dir():
                raise UserError(
                    f"{shown(parent)} is a file, but pictures need a folder there; choose another output folder"
                )
        names = dict.fromkeys((RESULTS_NAME, PARTIAL_NAME, LIST_NAME, *self._pictures.values(), *self._earlier()))
        standing = [self.folder / name for name in names if os.path.lexists(self.folder / name)]
        inputs = {_identity(Path(path)) for path in self._pictures} if standing else set()
        for path in standing:
            if path.exists() and _identity(path) in inputs:
                raise UserError(
                    f"the picture {shown(path)} would overwrite one of the source images; choose another output folder"
                )
            if path.is_dir() and not path.is_symlink():
                raise UserError(f"{shown(path)} is a folder, but a file is to be written; choose another output folder")
        if standing and not overwrite:
            one = "this file" if len(standing) == 1 else f"{len(standing)} such files"
            raise UserError(
                f"{shown(standing[0])} exists already ({one} would be overwritten); choose another output folder, or "
                f"give --overwrite (in Python overwrite=True), which also removes the pictures of the earlier run"
            )
        return standing

    def _earlier(self) -> list[str]:
        """The pictures that an earlier run listed. What is not a path inside the folder is not a picture of ours."""
        path = self.folder / LIST_NAME
        try:
            if not path.is_file():  # to open a pipe would wait for ever
                return []
            lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return []
        names = []
        for line in lines:
            try:
                name = json.loads(line)
            except (ValueError, RecursionError):  # half a line, after a kill
                continue
            if isinstance(name, str) and _is_picture_inside(name):
                names.append(name)
        return names

    def _remove_old(self) -> None:
        """Remove the results first and the pictures after them: then no results stand beside pictures of others."""
        for path in self._old:
            with _writing(path):
                path.unlink(missing_ok=True)
        for parent in sorted({path.parent for path in self._old} - {self.folder}, reverse=True):
            with contextlib.suppress(OSError):  # other files are in it
                parent.rmdir()


def _is_picture_inside(name: str) -> bool:
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\0" not in name
    return inside and path.suffix.lower() in _FORMATS


def _picture_names(names: Iterable[str]) -> list[str]:
    """A file name inside the output folder for each name: none twice, none that leaves the folder or is too long."""
    taken: set[str] = set()
    pictures: list[str] = []
    for name in names:
        inside = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("..", "/")))
        picture = _cut(inside if inside.suffix.lower() in _FORMATS else PurePosixPath(f"{inside}.png"))
        while str(picture).casefold() in taken:
            picture = picture.with_stem(f"{picture.stem}_")
        taken.add(str(picture).casefold())
        pictures.append(str(picture))
    return pictures


def _cut(picture: PurePosixPath) -> PurePosixPath:
    """A name that a disk takes. Only the added `.png` can make one too long."""
    while len(os.fsencode(picture.name)) > _LONGEST:
        picture = picture.with_stem(picture.stem[: -(1 + len(picture.stem) // 20)])
    return picture


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
