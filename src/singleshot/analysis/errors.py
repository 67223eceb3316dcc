"""What keeps AP down: the errors of a detector by kind (TIDE: Bolya et al., ECCV 2020, section 2), class and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from singleshot.data.dataset import Dataset, Floats, ImageRecord
from singleshot.errors import UserError
from singleshot.evaluation.coco import coco_metrics
from singleshot.evaluation.detections import ImageDetections, as_sides
from singleshot.ops.boxes import coverage, pairwise_iou

RIGHT, CONFUSED, MISPLACED, BOTH, DUPLICATE, BACKGROUND = range(6)
KINDS = ("right", "confused", "misplaced", "both", "duplicate", "background")
MISSED = "missed"
_NEITHER = -1  # a finding of a crowd or a difficult object, or beyond COCO's limit per image and class
_LIMIT = 100

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """What became of some objects, and what is wrong with some detections, at one score threshold."""

    name: str
    found: int  # objects that a detection is right for
    confused: int  # not found, but a detection of another class is on it
    misplaced: int  # not found, but a detection of its class is near it
    missed: int
    detections: dict[str, int]  # how many of each of `KINDS`

    @property
    def objects(self) -> int:
        """How many there are to find."""
        return self.found + self.confused + self.misplaced + self.missed


@dataclass(frozen=True)
class ErrorAnalysis:
    """The errors of a set of detections. AP50 and gains are fractions; sizes are square roots of areas in pixels."""

    images: int
    AP50: float  # COCO's, at an IoU of 0.5
    gains: dict[str, float]  # what AP50 would gain if all errors of a kind were mended
    min_score: float  # of the detections that are tallied
    classes: tuple[Tally, ...]
    sizes: tuple[Tally, ...]  # from the smallest quarter of the objects to the largest
    confusions: tuple[tuple[str, str, int], ...]  # (class, taken for, detections), the most frequent first

    @property
    def total(self) -> Tally:
        """All classes together."""
        return _sum("all", self.classes)

    @property
    def precision(self) -> float:
        """Right detections among those tallied; NaN where there is none."""
        kinds = self.total.detections
        return kinds["right"] / sum(kinds.values()) if sum(kinds.values()) else float("nan")

    @property
    def recall(self) -> float:
        """Objects found among all."""
        return self.total.found / self.total.objects

    def to_json(self) -> dict[str, Any]:
        """Plain data."""

        def plain(tally: Tally) -> dict[str, Any]:
            fates = {"found": tally.found, "confused": tally.confused, "misplaced": tally.misplaced}
            return {
                "name": tally.name,
                "objects": {"all": tally.objects, **fates, "missed": tally.missed},
                "detections": dict(tally.detections),
            }

        return {
            "images": self.images,
            "AP50": self.AP50,
            "gains": dict(self.gains),
            "min_score": self.min_score,
            "precision": self.precision,
            "recall": self.recall,
            "classes": [plain(tally) for tally in self.classes],
            "sizes": [plain(tally) for tally in self.sizes],
            "confusions": [{"class": a, "taken_for": b, "detections": n} for a, b, n in self.confusions],
        }


def error_analysis(
    dataset: Dataset,
    detections: Sequence[ImageDetections],
    *,
    min_score: float | None = None,
    iou: float = 0.5,
    background: float = 0.1,
) -> ErrorAnalysis:
    """Sort the detections of a dataset, one entry per record, by what is wrong with them.

    A detection is matched as COCO does: best score first, to the free object of its class that it overlaps most, by
    `iou` or more. Of the others, the first of these that holds is the kind of its error:
    - misplaced: it overlaps an object of its class by `background` or more, and none by `iou` or more;
    - confused: an object of another class by `iou` or more;
    - duplicate: an object of its class, which a better detection has taken, by `iou` or more;
    - both: an object of another class by `background` or more;
    - background: it overlaps no object so much.
    An object is missed when no detection is right for it, confused with it or misplaced near it. Detections of crowds
    and of VOC's difficult objects are neither right nor wrong.

    `gains` counts every detection: mended are, one kind at a time, confused or misplaced detections (of all that are
    confused with or misplaced near an object that is not found the best becomes right, the rest go), the other kinds of
    detections (they go), missed objects (they go; a class of which none is left then counts as 1, TIDE's own program
    has 0 if it was seen anywhere, else leaves it out). The gains of the kinds do not add up (TIDE, section 2.3). The
    tallies count detections from `min_score` on; by default the score with the best F1 of all classes together.

    Raises:
        UserError: no object to find, or the detections do not fit the dataset.
    """
    AP50 = coco_metrics(dataset, detections).AP50  # checks both
    if not any(ap >= 0 for ap in AP50):
        raise UserError(f"{dataset.root}: split {dataset.split!r} has no object to find; choose another split")
    sortings = [
        _sorted(found, record, iou, background) for found, record in zip(detections, dataset.records, strict=True)
    ]
    if min_score is None:
        min_score = _best_f1(detections, sortings)
    before = _mean(AP50, AP50)
    gains = {
        KINDS[kind]: _mean(coco_metrics(dataset, _mended(detections, dataset, sortings, kind)).AP50, AP50) - before
        for kind in (CONFUSED, MISPLACED, BOTH, DUPLICATE, BACKGROUND)
    }
    gains[MISSED] = _mean(coco_metrics(_without_missed(dataset, sortings), detections).AP50, AP50) - before
    columns = _Columns(dataset, detections, sortings, min_score)
    return ErrorAnalysis(
        images=len(dataset),
        AP50=before,
        gains=gains,
        min_score=min_score,
        classes=columns.by_class(dataset.class_names),
        sizes=columns.by_size(),
        confusions=columns.confusions(dataset.class_names),
    )


@dataclass(frozen=True)
class _Sorting:
    """One image."""

    kind: Integers  # [N] of each detection: a place in `KINDS`, or _NEITHER
    subject: Integers  # [N] the object of the record that the kind speaks of, -1: none
    finder: Integers  # [G] the detection that is right for each object, -1: none
    counts: NDArray[np.bool_]  # [G] objects to find


def _sorted(found: ImageDetections, record: ImageRecord, iou: float, background: float) -> _Sorting:
    ignored = record.crowd | record.difficult
    boxes, truth = (torch.from_numpy(np.asarray(b, np.float64).reshape(-1, 4)) for b in (found.boxes, record.boxes))
    overlap = torch.where(torch.from_numpy(ignored), coverage(boxes, truth), pairwise_iou(boxes, truth)).numpy()
    same = found.labels[:, None] == record.labels[None, :]
    kind = np.full(len(found), BACKGROUND)
    subject = np.full(len(found), -1)
    finder = np.full(len(record.labels), -1)

    own = np.where(same & ~ignored, overlap, -1.0)  # with objects to find of its class
    other = np.where(~same & ~ignored, overlap, -1.0)
    near = own.max(1, initial=-1.0, keepdims=True) < iou
    for test, least, name in (
        (other, background, BOTH),
        (own, iou, DUPLICATE),
        (other, iou, CONFUSED),
        (np.where(near, own, -1.0), background, MISPLACED),
    ):  # a later test outweighs the earlier ones
        hit = test.max(1, initial=-1.0) >= least
        kind[hit], subject[hit] = name, test[hit].argmax(1) if hit.any() else -1

    excused = np.where(same & ignored, overlap, -1.0).max(1, initial=-1.0) >= iou
    order = np.argsort(-found.scores, kind="stable")
    for row in order[~near[order, 0]]:
        free = np.where(finder < 0, own[row], -1.0)
        best = int(free.argmax())
        if free[best] >= iou:
            kind[row], subject[row], finder[best] = RIGHT, best, row
    kind[excused & (kind != RIGHT)] = _NEITHER
    _beyond_limit(found, order, kind, finder)
    return _Sorting(kind, subject, finder, ~ignored)


def _beyond_limit(found: ImageDetections, order: Integers, kind: Integers, finder: Integers) -> None:
    """COCO counts the 100 best detections of a class in an image."""
    for label in np.flatnonzero(np.bincount(found.labels) > _LIMIT) if len(found) else ():
        rest = order[found.labels[order] == label][_LIMIT:]
        finder[np.isin(finder, rest)] = -1
        kind[rest] = _NEITHER


def _best_f1(detections: Sequence[ImageDetections], sortings: Sequence[_Sorting]) -> float:
    """The score from which on detections have the best F1; 0 where none is right."""
    kinds = np.concatenate([one.kind for one in sortings])
    scores = np.concatenate([found.scores for found in detections])[kinds != _NEITHER]
    right = (kinds == RIGHT)[kinds != _NEITHER]
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    objects = sum(int(one.counts.sum()) for one in sortings)
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + objects)
    last = np.append(scores[order][1:] < scores[order][:-1], True)  # a threshold takes all of an equal score
    return float(scores[order][np.where(last, f1, -1.0).argmax()])


def _mended(
    detections: Sequence[ImageDetections], dataset: Dataset, sortings: Sequence[_Sorting], kind: int
) -> list[ImageDetections]:
    result = []
    for found, record, one in zip(detections, dataset.records, sortings, strict=True):
        boxes, labels = found.boxes.copy(), found.labels.copy()
        keep = one.kind != kind
        if kind in (CONFUSED, MISPLACED):
            best = _candidates(found, one)
            best = best[one.kind[best] == kind]
            boxes[best], labels[best] = record.boxes[one.subject[best]], record.labels[one.subject[best]]
            keep[best] = True
        sides = found.sides().copy()
        moved = (boxes != found.boxes).any(1)
        sides[moved] = as_sides(boxes[moved])
        order = None if found.order is None else found.order[keep]
        result.append(ImageDetections(boxes[keep], found.scores[keep], labels[keep], xywh=sides[keep], order=order))
    return result


def _candidates(found: ImageDetections, one: _Sorting) -> Integers:
    """The best detection that is confused with, or misplaced near, each object that is not found."""
    rows = np.flatnonzero((one.kind == CONFUSED) | (one.kind == MISPLACED))
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    subjects, firsts = np.unique(one.subject[rows], return_index=True)
    return rows[firsts[one.finder[subjects] < 0]]


def _fates(one: _Sorting, counted: NDArray[np.bool_]) -> Integers:
    """What became of each object [G], given the detections that count: RIGHT, CONFUSED, MISPLACED or _NEITHER."""
    fate = np.full(len(one.finder), _NEITHER)
    for kind in (MISPLACED, CONFUSED, RIGHT):
        fate[one.subject[counted & (one.kind == kind)]] = kind
    return fate


def _without_missed(dataset: Dataset, sortings: Sequence[_Sorting]) -> Dataset:
    records = []
    for record, one in zip(dataset.records, sortings, strict=True):
        keep = ~one.counts | (_fates(one, np.ones(len(one.kind), bool)) != _NEITHER)
        columns = {
            name: getattr(record, name)[keep]
            for name in ("boxes", "labels", "difficult", "crowd", "truncated", "areas")
        }
        records.append(replace(record, **columns, xywh=None if record.xywh is None else record.xywh[keep]))
    return replace(dataset, records=tuple(records))


def _mean(AP50: Sequence[float], before: Sequence[float]) -> float:
    """Over the classes that had an object to find; 1 for a class of which none is left."""
    return float(np.mean([ap if ap >= 0 else 1.0 for ap, had in zip(AP50, before, strict=True) if had >= 0]))


class _Columns:
    """Objects and detections of all images in columns."""

    def __init__(
        self,
        dataset: Dataset,
        detections: Sequence[ImageDetections],
        sortings: Sequence[_Sorting],
        min_score: float,
    ) -> None:
        objects: list[tuple[Integers, Integers, Floats]] = []
        tallied: list[tuple[Integers, Integers, Floats, Integers]] = []
        for found, record, one in zip(detections, dataset.records, sortings, strict=True):
            counted = (found.scores >= min_score) & (one.kind != _NEITHER)
            objects.append((
                _fates(one, counted)[one.counts], record.labels[one.counts], _sizes(record.boxes)[one.counts]
            ))  # fmt: skip
            spoken_of = np.append(record.labels, -1)[one.subject[counted]]  # the class of the kind's object, -1: none
            tallied.append((one.kind[counted], found.labels[counted], _sizes(found.boxes)[counted], spoken_of))
        self.fates, self.labels, self.sizes = map(np.concatenate, zip(*objects, strict=True))
        self.kinds, self.found_labels, self.found_sizes, self.subjects = map(np.concatenate, zip(*tallied, strict=True))

    def by_class(self, names: Sequence[str]) -> tuple[Tally, ...]:
        return tuple(self._tally(name, self.labels == k, self.found_labels == k) for k, name in enumerate(names))

    def by_size(self) -> tuple[Tally, ...]:
        edges = np.quantile(self.sizes, (0.25, 0.5, 0.75))
        names = [
            f"up to {edges[0]:.0f} px",
            *(f"{edges[k]:.0f} to {edges[k + 1]:.0f} px" for k in (0, 1)),
            f"above {edges[2]:.0f} px",
        ]
        place, found = np.searchsorted(edges, self.sizes), np.searchsorted(edges, self.found_sizes)
        return tuple(self._tally(name, place == k, found == k) for k, name in enumerate(names))

    def confusions(self, names: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
        rows = self.kinds == CONFUSED
        pairs = Counter(zip(self.subjects[rows].tolist(), self.found_labels[rows].tolist(), strict=True))
        return tuple((names[a], names[b], n) for (a, b), n in sorted(pairs.items(), key=lambda one: (-one[1], one[0])))

    def _tally(self, name: str, objects: NDArray[np.bool_], detections: NDArray[np.bool_]) -> Tally:
        fates, kinds = self.fates[objects], self.kinds[detections]
        count = {kind: int((fates == kind).sum()) for kind in (RIGHT, CONFUSED, MISPLACED, _NEITHER)}
        return Tally(
            name,
            found=count[RIGHT],
            confused=count[CONFUSED],
            misplaced=count[MISPLACED],
            missed=count[_NEITHER],
            detections={kind: int((kinds == place).sum()) for place, kind in enumerate(KINDS)},
        )


def _sizes(boxes: Floats) -> Floats:
    sides = as_sides(boxes)[:, 2:].clip(0)
    return np.asarray(np.sqrt(sides.prod(1)), np.float64)


def _sum(name: str, tallies: Iterable[Tally]) -> Tally:
    tallies = tuple(tallies)
    return Tally(
        name,
        found=sum(one.found for one in tallies),
        confused=sum(one.confused for one in tallies),
        misplaced=sum(one.misplaced for one in tallies),
        missed=sum(one.missed for one in tallies),
        detections={kind: sum(one.detections[kind] for one in tallies) for kind in KINDS},
    )
