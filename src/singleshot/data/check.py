"""Checks a dataset before training: errors stop it, warnings are repaired in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from singleshot.conversions import FARTHEST
from singleshot.data.dataset import ELSEWHERE, Dataset, Floats, ImageRecord, Problem
from singleshot.data.decode_all import decode_all, memory_file
from singleshot.data.deep import DeepRange
from singleshot.data.images import Decoded
from singleshot.data.whole_set import find_in_whole
from singleshot.errors import UserError, readable

_IMAGE_OUT = "the image is left out"
ERRORS: Mapping[str, str] = {
    "missing image": _IMAGE_OUT,
    "unreadable image": _IMAGE_OUT,
    "broken annotation": "its image is left out",
    "broken category": "it is left out, with the images of its objects; the first of several with one id counts",
    "outside of the data": _IMAGE_OUT,
    "key twice": "the last value counts",
    "duplicate image id": "an image listed twice is kept once; different images of one id are all left out",
    "invalid box": _IMAGE_OUT,
    "corners as sizes": "the boxes are used as they are read",
    "unknown class": "its boxes are left out, with their images if the file itself does not know the class",
}
"""The kinds of problem that stop training, each with what `skip_bad` does about it."""

WARNINGS: Mapping[str, str] = {
    "zero-size box": "left out of training",
    "box partly outside": "clipped for training",
    "box outside": "left out of training",
    "duplicate box": "the first is kept",
    "swapped size": "the size of the image file is used",
    "wrong size": "the size of the image file is used",
    "missing size": "the size of the image file is used",
    "no annotation": _IMAGE_OUT,
    "no boxes": "the image is kept",
    "annotation without image": "left out",
    "polygon without box": "its box is computed from the polygon",
    "id of another type": "ids that are the same as text are the same",
    "boxes like corners": "they are used as they are read",
    "box under a pixel": "they are kept",
    "many objects": "all are kept",
    "deep images": "they are read by the range that is named",
    "similar class names": "they remain different classes",
    ELSEWHERE: "the image of the data that has the last part of this name is used",
    "shared image": "each entry counts as a separate image, in which the objects of the other entries are background",
}
"""The kinds of problem that do not stop training, each with how it is repaired in memory."""

_SLACK = 0.02  # pixels; COCO writes two decimals, and x + w has the rounding errors of both


@dataclass(frozen=True)
class Report:
    """What the check of one split found."""

    title: str
    images: int  # that the files describe
    boxes: int
    usable: int  # images that remain
    errors: list[Problem]
    warnings: list[Problem]
    left_out: Mapping[str, int] = field(default_factory=dict)  # kind of problem -> images that do not remain for it

    def counts(self) -> dict[str, int]:
        """How often each kind occurs, errors first."""
        return dict(Counter(finding.kind for finding in [*self.errors, *self.warnings]))

    def text(self, limit: int = 3) -> str:
        """The report as text, with the first `limit` findings of each kind."""
        return "\n".join(map(readable, self.lines(limit)))

    def lines(self, limit: int = 3) -> list[str]:
        """The lines of `text`, in which names and messages stand as they are in the files."""
        lines = [
            f"{self.title}: {self.images} images, {self.boxes} boxes; "
            f"{_number(self.errors, 'error')}, {_number(self.warnings, 'warning')}"
        ]
        for word, findings, known in (("error", self.errors, ERRORS), ("warning", self.warnings, WARNINGS)):
            for kind, treatment in known.items():
                group = [finding for finding in findings if finding.kind == kind]
                if not group:
                    continue
                then = treatment if word == "warning" else f"with --skip-bad {treatment}"
                lines.append(f"  {word}: {kind} ({len(group)}): {then}")
                lines += [f"    {finding}" for finding in group[:limit]]
                if len(group) > limit:
                    lines.append(f"    ... and {len(group) - limit} more")
        if self.left_out:
            why = ", ".join(f"{kind} ({number})" for kind, number in self.left_out.items())
            lines.append(f"  left: {self.usable} of {self.images} images; left out for: {why}")
        return lines

    def to_json(self) -> dict[str, object]:
        """The report as plain data: counts, and every finding with its kind, place and message."""
        return {
            "title": self.title,
            "images": self.images,
            "boxes": self.boxes,
            "usable": self.usable,
            "counts": self.counts(),
            "left_out": dict(self.left_out),
            "errors": [vars(finding) for finding in self.errors],
            "warnings": [vars(finding) for finding in self.warnings],
        }


def check(
    dataset: Dataset,
    *,
    skip_bad: bool = False,
    deep_range: DeepRange | None = None,
    cache: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Dataset, Report]:
    """Check a dataset that was opened with `strict=False`; return it repaired for training, with the report.

    Every image is decoded. Errors (the keys of `ERRORS`) raise UserError with the whole report; with `skip_bad` they
    are left out instead. Warnings (the keys of `WARNINGS`) are repaired in the returned records, and `size` becomes
    that of the image file. The files are not changed, and evaluation uses the dataset as it was read. With `cache`,
    images that could be read are remembered in the user's cache folder. `deep_range` is how training will read grey
    images of more than 8 bits. UserError also when no image is left.
    """
    mended, report = examine(dataset, deep_range=deep_range, cache=cache, workers=workers, progress=progress)
    if report.errors and not skip_bad:
        advice = "Correct the files, or leave the bad entries out with --skip-bad (skip_bad=True in Python)."
        raise UserError(*report.lines(limit=10), advice)
    if not mended.records:
        nothing = "No usable image is left. Correct the files, or choose other data."
        raise UserError(*report.lines(limit=10), nothing)
    return mended, report


def examine(
    dataset: Dataset,
    *,
    deep_range: DeepRange | None = None,
    cache: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Dataset, Report]:
    """As `check`, but errors do not raise: return the dataset without them, and the report."""
    memory = memory_file(dataset.root) if cache else None
    paths = [record.path for record in dataset.records]
    found = decode_all(paths, memory=memory, workers=workers, progress=progress)
    errors, warnings, kept = list(dataset.problems), list(dataset.notes), []
    left_out = Counter(dataset.left_out)
    for record in dataset.records:
        inspection = _Inspection(record, dataset.class_names)
        mended = inspection.mend(found[record.path])
        errors += inspection.errors
        warnings += inspection.warnings
        if mended is not None:
            kept.append(mended)
        else:
            left_out[(*inspection.errors, *inspection.warnings)[0].kind] += 1
    whole = find_in_whole(dataset, found, deep_range)
    errors, warnings = errors + whole[0], warnings + whole[1]
    report = Report(
        title=f"{dataset.root} ({dataset.format}, split {dataset.split})",
        images=len(dataset.records) + len(dataset.left_out),
        boxes=sum(len(record.labels) for record in dataset.records),
        usable=len(kept),
        errors=errors,
        warnings=warnings,
        left_out=left_out,
    )
    return replace(dataset, records=tuple(kept), problems=(), notes=(), left_out=()), report


class _Inspection:
    """One image: what is wrong with it, and the record for training."""

    def __init__(self, record: ImageRecord, class_names: tuple[str, ...]) -> None:
        self.record = record
        self.class_names = class_names
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def mend(self, decoded: Decoded | str) -> ImageRecord | None:
        """The record for training; None when the image is left out."""
        record = self.record
        self._find_invalid_boxes()
        if isinstance(decoded, str):
            kind = "unreadable image" if _exists(record.path) else "missing image"
            self.errors.append(Problem(kind, str(record.annotation or record.path), decoded))
            return None
        if not record.annotated:
            self._warn("no annotation", "this image has no annotation")
            return None
        if self.errors:
            return None
        self._compare_size(decoded.size)
        boxes, keep = self._mend_boxes(decoded.size)
        if not len(record.labels):
            self._warn("no boxes", "this image has no objects")
        return replace(
            record,
            size=decoded.size,
            boxes=boxes[keep],
            labels=record.labels[keep],
            difficult=record.difficult[keep],
            crowd=record.crowd[keep],
            truncated=record.truncated[keep],
            areas=record.areas[keep],
            xywh=None,
        )

    def _warn(self, kind: str, message: str) -> None:
        self.warnings.append(Problem(kind, self._where(), message))

    def _where(self) -> str:
        """The XML file, or the image's name within the JSON file."""
        file = self.record.annotation
        if file is None:
            return str(self.record.path)
        return str(file) if file.suffix.lower() == ".xml" else f"{file}: {self.record.name}"

    def _object(self, row: int) -> str:
        box = ", ".join(f"{side:g}" for side in self.record.boxes[row])
        return f"object {row + 1} ({self.class_names[self.record.labels[row]]}) [{box}]"

    def _find_invalid_boxes(self) -> None:
        boxes = self.record.boxes
        near: NDArray[np.bool_] = np.asarray((np.abs(boxes) <= FARTHEST).all(axis=1))  # NaN is not
        inverted = near & ((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1]))
        for row in np.flatnonzero(~near | inverted).tolist():
            if near[row]:
                why = "x2 < x1 or y2 < y1"
            elif np.isfinite(boxes[row]).all():
                why = f"a side is beyond {FARTHEST:g} pixels"
            else:
                why = "a side is NaN or infinite"
            self.errors.append(Problem("invalid box", self._where(), f"{self._object(row)}: {why}"))

    def _compare_size(self, actual: tuple[int, int]) -> None:
        height, width = actual
        said_height, said_width = self.record.size
        said = f"the annotation says {said_width}x{said_height}, the file is {width}x{height}"
        if said_height <= 0 or said_width <= 0:
            self._warn("missing size", said)
        elif (said_width, said_height) == (height, width) and height != width:
            self._warn("swapped size", f"{said}: width and height are swapped")
        elif (said_height, said_width) != actual:
            self._warn("wrong size", said)

    def _mend_boxes(self, size: tuple[int, int]) -> tuple[Floats, list[int]]:
        """All boxes clipped to the image, and the rows that training keeps."""
        height, width = size
        boxes = self.record.boxes
        clipped = np.clip(boxes, 0.0, [width, height, width, height])
        seen: set[tuple[float, ...]] = set()
        keep = []
        for row, (box, inside) in enumerate(zip(boxes, clipped, strict=True)):
            key = (*box.tolist(), int(self.record.labels[row]), bool(self.record.crowd[row]))
            if _is_flat(box):
                self._warn("zero-size box", f"{self._object(row)} has no width or no height")
            elif _is_flat(inside):
                self._warn("box outside", f"{self._object(row)} lies outside the image of {width}x{height}")
            elif key in seen:
                self._warn("duplicate box", f"{self._object(row)} occurs twice")
            else:
                seen.add(key)
                keep.append(row)
                if np.abs(box - inside).max() > _SLACK:
                    self._warn("box partly outside", f"{self._object(row)} reaches beyond the image: {width}x{height}")
        return clipped, keep


def _is_flat(box: Floats) -> bool:
    """Whether a box has no width or no height in float32, the precision of training."""
    x1, y1, x2, y2 = box.astype(np.float32)
    return bool(x2 <= x1 or y2 <= y1)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _number(findings: list[Problem], word: str) -> str:
    return f"{len(findings)} {word}{'' if len(findings) == 1 else 's'}"
