"""Objects and detections counted by class and by size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from singleshot.analysis.errors.result import Tally
from singleshot.analysis.errors.sorting import CONFUSED, KINDS, MISPLACED, NEITHER, RIGHT, Integers, Sorting, fates_of
from singleshot.data.dataset import Dataset, Floats
from singleshot.evaluation.detections import ImageDetections, as_sides


class Tallies:
    """The objects and detections of all images, as columns."""

    def __init__(
        self,
        dataset: Dataset,
        detections: Sequence[ImageDetections],
        sortings: Sequence[Sorting],
        min_score: float,
    ) -> None:
        objects: list[tuple[Integers, Integers, Floats]] = []
        tallied: list[tuple[Integers, Integers, Floats, Integers]] = []
        for found, record, one in zip(detections, dataset.records, sortings, strict=True):
            counted = (found.scores >= min_score) & (one.kind != NEITHER)
            objects.append((
                fates_of(one, counted)[one.counts], record.labels[one.counts], _sizes(record.boxes)[one.counts]
            ))  # fmt: skip
            spoken_of = np.append(record.labels, -1)[one.subject[counted]]  # the class of the subject; -1: none
            tallied.append((one.kind[counted], found.labels[counted], _sizes(found.boxes)[counted], spoken_of))
        self.fates, self.labels, self.sizes = map(np.concatenate, zip(*objects, strict=True))
        self.kinds, self.found_labels, self.found_sizes, self.subjects = map(np.concatenate, zip(*tallied, strict=True))

    def by_class(self, names: Sequence[str]) -> tuple[Tally, ...]:
        """A tally for each class."""
        return tuple(self._tally(name, self.labels == k, self.found_labels == k) for k, name in enumerate(names))

    def by_size(self) -> tuple[Tally, ...]:
        """A tally for each quarter of the objects, from the smallest to the largest."""
        edges = np.quantile(self.sizes, (0.25, 0.5, 0.75))
        names = [
            f"up to {edges[0]:.0f} px",
            *(f"{edges[k]:.0f} to {edges[k + 1]:.0f} px" for k in (0, 1)),
            f"above {edges[2]:.0f} px",
        ]
        place, found = np.searchsorted(edges, self.sizes), np.searchsorted(edges, self.found_sizes)
        return tuple(self._tally(name, place == k, found == k) for k, name in enumerate(names))

    def confusions(self, names: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
        """(class, taken for, how often), most frequent first."""
        rows = self.kinds == CONFUSED
        pairs = Counter(zip(self.subjects[rows].tolist(), self.found_labels[rows].tolist(), strict=True))
        return tuple((names[a], names[b], n) for (a, b), n in sorted(pairs.items(), key=lambda one: (-one[1], one[0])))

    def _tally(self, name: str, objects: NDArray[np.bool_], detections: NDArray[np.bool_]) -> Tally:
        fates, kinds = self.fates[objects], self.kinds[detections]
        count = {kind: int((fates == kind).sum()) for kind in (RIGHT, CONFUSED, MISPLACED, NEITHER)}
        return Tally(
            name,
            found=count[RIGHT],
            confused=count[CONFUSED],
            misplaced=count[MISPLACED],
            missed=count[NEITHER],
            detections={kind: int((kinds == place).sum()) for place, kind in enumerate(KINDS)},
        )


def _sizes(boxes: Floats) -> Floats:
    sides = as_sides(boxes)[:, 2:].clip(0)
    return np.asarray(np.sqrt(sides.prod(1)), np.float64)
