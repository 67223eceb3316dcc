"""What an export made, and how it compares with the detector: for people and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from singleshot.engines.parity import LEAST_MATCHED, Parity
from singleshot.errors import shown
from singleshot.evaluation.metrics import Metrics
from singleshot.text_table import table


@dataclass(frozen=True)
class Measured:
    """One form of the detector: what it costs, and what it finds."""

    title: str
    ms: float  # of one image, from its pixels to its detections, on this machine
    megabytes: float
    ap: float | None = None  # COCO AP and AP50, 0 to 1; None without data
    ap50: float | None = None
    same: float | None = None  # the share of the detector's objects that it finds too; None for the detector itself
    kept: tuple[str, ...] = ()  # of an int8 form: the layers in float32


@dataclass(frozen=True)
class Exported:
    """The outcome of an export: the file, and what shows that it finds what the detector finds."""

    path: Path
    format: str
    precision: str
    images: str  # which images were compared, in words
    parity: Parity
    max_drop: float  # points of AP that may be lost, for bf16 and int8
    forms: tuple[Measured, ...]  # the detector, then each try; the last one is the file
    before: Metrics | None = None  # with data: the detector's metrics, and those of the exported form
    after: Metrics | None = None

    @property
    def drop(self) -> float | None:
        """By how many points (of 100) AP is lower after the export; None without data."""
        first, last = self.forms[0].ap, self.forms[-1].ap
        return None if first is None or last is None else 100 * (first - last)

    @property
    def fault(self) -> str | None:
        """What is beyond the tolerance; None if the exported form finds what the detector finds."""
        return fault_of(self.parity, self.drop, precision=self.precision, max_drop=self.max_drop)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "images": self.images,
            "parity": self.parity.to_json(),
            "max_drop": self.max_drop,
            "drop": self.drop,
            "forms": [asdict(form) for form in self.forms],
            "before": None if self.before is None else self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
        }

    def text(self) -> str:
        """The report for people."""
        return "\n".join(
            [*self.parity.lines(), f"                   on {self.images}", "", self._forms(), *self._classes()]
        )

    def _forms(self) -> str:
        header = ["", "AP", "AP50", "same objects", "ms", "MB"]
        rows = [
            [
                form.title,
                _percent(form.ap),
                _percent(form.ap50),
                _percent(form.same),
                f"{form.ms:.1f}",
                f"{form.megabytes:.1f}",
            ]
            for form in self.forms
        ]
        kept = self.forms[-1].kept
        told = [f"in float32: {', '.join(map(shown, kept))}"] if kept else []
        return "\n".join([table(rows, header=header), *told])

    def _classes(self) -> list[str]:
        if self.before is None or self.after is None:
            return []
        rows = [
            [shown(name), _percent(first), _percent(second), _difference(first, second)]
            for name, first, second in zip(
                self.before.class_names, self.before.coco.AP, self.after.coco.AP, strict=True
            )
        ]
        return ["", table(rows, header=["class", "AP before", "AP after", "difference"])]


def fault_of(parity: Parity, drop: float | None, *, precision: str, max_drop: float) -> str | None:
    """What is beyond the tolerance of a precision; None if nothing is."""
    if not parity.objects:
        return (
            f"the detector finds nothing in these images at threshold {parity.threshold:g}, so nothing shows that the "
            "exported form is right; give --data, a dataset like that of its training"
        )
    if precision == "fp32":
        if parity.exact:
            return None
        return (
            f"the exported form does not find the same objects: {parity.missing} of {parity.objects} are lost and "
            f"{parity.added} are new; boxes differ by up to {parity.box:.2g} pixels, scores by {parity.score:.2g}"
        )
    if drop is not None:
        if drop <= max_drop:
            return None
        return f"AP drops by {drop:.2f} points, and --max-drop allows {max_drop:g}"
    if parity.share >= LEAST_MATCHED:
        return None
    return (
        f"only {100 * parity.share:.1f} % of the objects are the same, and {100 * LEAST_MATCHED:.0f} % are needed; "
        "with --data the loss of AP decides instead"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"


def _difference(first: float, second: float) -> str:
    return "-" if first < 0 or second < 0 else f"{100 * (second - first):+.1f}"


__all__: Sequence[str] = ("Exported", "Measured", "fault_of")
