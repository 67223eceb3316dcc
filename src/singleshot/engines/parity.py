"""Whether two forms of a detector find the same objects: the numbers, and the verdict by a tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

USUAL_THRESHOLD = 0.3
"""The score from which an object counts, as in `singleshot detect`."""

BOX, BOX_OF_SIDE, SCORE = 0.01, 1e-5, 1e-4
"""float32: how far boxes may lie apart, in pixels and as a share of the image's longer side, and scores."""

NEAR = 1e-3
"""An object whose score is this near to the threshold may be found by one form only."""

LEAST_MATCHED = 0.95
"""bf16 and int8 without data to measure on: the share of the objects that both forms must find."""

MAX_DROP = {"fp32": 0.2, "bf16": 0.2, "int8": 0.5}
"""By how many points (of 100) AP may be lower than the detector's, by the precision of the exported form."""

_SAME_BOX = 0.5  # the similarity from which two boxes are the same object
_OBJECTS = 5  # an image's share of objects, where the usual threshold leaves next to none


class Found(Protocol):
    """The detections of one image, in its own pixels: an `ImageDetections`, for example."""

    @property
    def boxes(self) -> NDArray[Any]:
        """Boxes [N, 4] xyxy."""

    @property
    def scores(self) -> NDArray[Any]:
        """Scores [N]."""

    @property
    def labels(self) -> NDArray[Any]:
        """Labels [N]."""


@dataclass(frozen=True)
class Parity:
    """How an exported detector differs from its detector over some images. Objects are those above `threshold`."""

    images: int
    threshold: float
    objects: int  # of the detector and of its exported form: those that both have count once
    matched: int  # objects that both have
    missing: int  # only the detector has
    added: int  # only the exported form has
    other_labels: int  # of the missing ones: the exported form has the box under another label
    box: float  # the largest difference of a coordinate, in pixels of the image
    box_excess: float  # by how much a coordinate is farther apart than float32 allows; 0: nowhere
    score: float  # the largest difference

    @property
    def share(self) -> float:
        """The share of the objects that both have; 1 if there are no objects."""
        return self.matched / self.objects if self.objects else 1.0

    @property
    def exact(self) -> bool:
        """Whether the exported form finds the same objects within the tolerance of float32."""
        return not (self.missing or self.added or self.box_excess) and self.score <= SCORE

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "share": self.share, "exact": self.exact}

    def lines(self) -> list[str]:
        """The numbers for people."""
        alone = f"{self.missing} only before the export, {self.added} only after it" if self.objects else "none found"
        if self.other_labels:
            alone += f"; {self.other_labels} of them have another label after it"
        return [
            f"objects            {self.matched} of {self.objects} the same at threshold {self.threshold:.3g} ({alone})",
            f"largest difference boxes {self.box:.2g} pixels, scores {self.score:.2g}",
        ]


def compare(
    reference: Sequence[Found],
    exported: Sequence[Found],
    sizes: Iterable[tuple[int, int]],
    *,
    threshold: float | None = None,
    near: float | None = None,
) -> Parity:
    """Compare what a detector and its exported form find in the same images.

    `sizes`: (height, width) of each image. `threshold`: the score from which an object counts; None: 0.3, or lower
    where this leaves next to no object (`usual_threshold`). Objects are matched one to one, within a label. Those whose
    score is within `near` (default `NEAR`) of the threshold may be missing on one side.
    """
    least = usual_threshold(reference) if threshold is None else threshold
    near = NEAR if near is None else near
    objects = matched = missing = added = other = 0
    box = excess = score = 0.0
    for before, after, size in zip(reference, exported, sizes, strict=True):
        boxes, its = (np.asarray(one.boxes, np.float64).reshape(-1, 4) for one in (before, after))
        mine, theirs = np.asarray(before.scores, np.float64), np.asarray(after.scores, np.float64)
        pairs = _pairs(boxes, before.labels, mine, its, after.labels, theirs, least - near)
        first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
        counted = np.maximum(mine[first], theirs[second]) >= least
        first, second = first[counted], second[counted]
        if len(first):
            apart = float(np.abs(boxes[first] - its[second]).max())
            box = max(box, apart)
            excess = max(excess, apart - BOX - BOX_OF_SIDE * max(size))
            score = max(score, float(np.abs(mine[first] - theirs[second]).max()))
        lost = np.setdiff1d(np.flatnonzero(mine > least + near), first)
        new = np.setdiff1d(np.flatnonzero(theirs > least + near), second)
        other += int((_similarity(boxes[lost], its[new]).max(1, initial=0.0) >= _SAME_BOX).sum())
        matched, missing, added = matched + len(first), missing + len(lost), added + len(new)
        objects += len(first) + len(lost) + len(new)
    return Parity(len(reference), least, objects, matched, missing, added, other, box, excess, score)


def usual_threshold(found: Sequence[Found]) -> float:
    """0.3; or the score of the best objects, five for each image, where 0.3 leaves fewer than one for each image."""
    scores = np.sort(np.concatenate([np.zeros(0), *(np.asarray(one.scores, np.float64) for one in found)]))[::-1]
    if (scores >= USUAL_THRESHOLD).sum() >= len(found) or not len(scores):
        return USUAL_THRESHOLD
    return float(min(USUAL_THRESHOLD, scores[min(len(scores), _OBJECTS * len(found)) - 1]))


def _pairs(
    boxes: NDArray[Any],
    labels: NDArray[Any],
    scores: NDArray[Any],
    its: NDArray[Any],
    its_labels: NDArray[Any],
    its_scores: NDArray[Any],
    least: float,
) -> list[tuple[int, int]]:
    """Rows of the same object: the most similar boxes of a label first, each row once."""
    first, second = np.flatnonzero(scores >= least), np.flatnonzero(its_scores >= least)
    alike = _similarity(boxes[first], its[second])
    alike[np.asarray(labels)[first][:, None] != np.asarray(its_labels)[second]] = 0.0
    rows, columns = np.nonzero(alike >= _SAME_BOX)
    # Among equally similar boxes (identical ones that NMS keeps, in soft-NMS) the nearest score decides.
    apart = np.abs(scores[first][rows] - its_scores[second][columns])
    pairs: list[tuple[int, int]] = []
    free_rows, free_columns = np.ones(len(first), bool), np.ones(len(second), bool)
    for place in np.lexsort((apart, -alike[rows, columns].round(6))):
        row, column = rows[place], columns[place]
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            pairs.append((int(first[row]), int(second[column])))
    return pairs


def _similarity(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """[N, 4], [M, 4] -> [N, M]: the IoU, or 1 / (1 + d) for corners d pixels apart, whichever is larger.

    The second counts for boxes of a pixel or less, which have next to no IoU after any rounding.
    """
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas, its = (np.clip(one[:, 2:] - one[:, :2], 0, None).prod(-1) for one in (boxes, others))
    union = areas[:, None] + its - both
    apart = np.abs(boxes[:, None] - others).max(-1, initial=0.0)
    similar: NDArray[Any] = np.maximum(both / np.maximum(union, 1e-9), 1 / (1 + apart))
    return similar
