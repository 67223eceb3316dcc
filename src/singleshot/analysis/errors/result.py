"""The result of an analysis of errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from singleshot.analysis.errors.section import errors_section
from singleshot.analysis.errors.sorting import KINDS
from singleshot.analysis.section import Section


@dataclass(frozen=True)
class Tally:
    """How many objects were found or not, and how many detections had which error, at one score threshold."""

    name: str
    found: int  # objects with a right detection
    confused: int  # not found, but a detection of another class is on it
    misplaced: int  # not found, but a detection of its class is near it
    missed: int
    detections: dict[str, int]  # how many of each of `KINDS`

    @property
    def objects(self) -> int:
        """How many objects there are to find."""
        return self.found + self.confused + self.misplaced + self.missed


@dataclass(frozen=True)
class ErrorAnalysis:
    """The errors of a set of detections. AP50 and gains are fractions. Sizes are square roots of areas, in pixels."""

    images: int
    AP50: float  # COCO's, at an IoU of 0.5
    gains: dict[str, float]  # how much AP50 would rise if all errors of a kind were fixed
    min_score: float  # the lowest score of a counted detection
    classes: tuple[Tally, ...]
    sizes: tuple[Tally, ...]  # from the smallest quarter of the objects to the largest
    confusions: tuple[tuple[str, str, int], ...]  # (class, taken for, detections), most frequent first

    @property
    def total(self) -> Tally:
        """All classes together."""
        return _sum("all", self.classes)

    @property
    def precision(self) -> float:
        """The fraction of right detections among those counted; NaN where there are none."""
        kinds = self.total.detections
        return kinds["right"] / sum(kinds.values()) if sum(kinds.values()) else float("nan")

    @property
    def recall(self) -> float:
        """The fraction of all objects that were found."""
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

    def section(self) -> Section:
        """The tables and the figure."""
        return errors_section(self)


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
