"""The options of a run over images: which detections are kept, and how the run is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from singleshot.errors import UserError, did_you_mean, in_brackets, short
from singleshot.ranges import MOST_IMAGES, MOST_WORKERS

LEAST = {"batch_size": 1, "top_k": 1, "workers": 0}
MOST = {"batch_size": MOST_IMAGES, "top_k": 10**6, "workers": MOST_WORKERS}
"""The smallest and the largest allowed value of each option that is a count."""


class Choices(TypedDict, total=False):
    """The fields of `Options` as keywords of `detect` and `iterate`."""

    threshold: float
    batch_size: int
    classes: Sequence[str] | str | None
    top_k: int | None
    workers: int
    skip_bad: bool


@dataclass(frozen=True)
class Options:
    """The choices of `detect`, `iterate` and `singleshot detect`.

    Raises UserError for a number out of range, and for an empty list of classes.
    """

    threshold: float = 0.3  # detections with a lower score are dropped
    batch_size: int = 8  # images that the network sees at a time
    classes: Sequence[str] | str | None = None  # only these classes; None: all classes of the detector
    top_k: int | None = None  # at most this many detections of an image, the best first
    workers: int = 1  # threads that read images ahead
    skip_bad: bool = False  # skip an image that cannot be read, with a note in the log, instead of stopping

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"the threshold must be between 0 and 1, got {self.threshold}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
            if value is not None and value > MOST[name]:
                raise UserError(f"{name} must be at most {MOST[name]:,}, got {short(value)}")
        if self.classes is not None:
            named = (self.classes,) if isinstance(self.classes, str) else tuple(self.classes)
            if not named:
                raise UserError(
                    "the list of classes is empty; name at least one, or leave the option out for all classes"
                )
            object.__setattr__(self, "classes", named)

    def labels(self, class_names: Sequence[str]) -> frozenset[int] | None:
        """The labels of the classes that are kept; None: all.

        Raises UserError for a name that is not a class of the detector.
        """
        if self.classes is None:
            return None
        for name in self.classes:
            if name not in class_names:
                hint = in_brackets(did_you_mean(str(name), class_names, number=1, show=repr))
                shown = ", ".join(class_names[:100]) + (", ..." if len(class_names) > 100 else "")
                raise UserError(f"the detector has no class {name!r}{hint}; its classes are: {shown}")
        return frozenset(label for label, name in enumerate(class_names) if name in self.classes)
