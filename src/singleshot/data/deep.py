"""Deep images: one channel with more than 8 bits, and which of its values are black and white."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from singleshot.errors import UserError, short

_16_BITS = 2.0**16 - 1
_32_BITS = 2.0**31 - 1

NEARLY_BLACK = 64
"""Of 255: an image whose brightest pixel is below it is nearly black."""

_log = logging.getLogger(__name__)
_first_warning = Lock()  # taken by the only thread that warns


@dataclass(frozen=True)
class DeepRange:
    """The value that becomes 0 and the one that becomes 255 when a deep image is read; all beyond them is cut.

    `DeepRange(0, 4095)` is for the 12 bits of many cameras and scanners, which are stored in files of 16 bits.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high - self.low) and self.low < self.high):
            raise UserError(
                f"deep_range is [{self.low:g}, {self.high:g}]; expected two numbers, the value that is black and a "
                "larger one that is white, such as [0, 4095]"
            )

    @classmethod
    def of(cls, given: DeepRange | Sequence[float] | None) -> DeepRange | None:
        """From two numbers; None and an empty list are None, which means the range of the file's type.

        Raises UserError for anything else.
        """
        if given is None or isinstance(given, DeepRange):
            return given
        if isinstance(given, list | tuple):
            if not given:
                return None
            if len(given) == 2 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in given):
                try:
                    return cls(*map(float, given))
                except OverflowError:  # a whole number beyond all floats
                    pass
        raise UserError(
            f"deep_range is {short(given)}; expected two numbers, the value that is black and a larger one that is "
            "white, such as [0, 4095]"
        )

    def to_8_bits(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values of any type as 0..255."""
        if values.dtype.kind == "u" and values.dtype.itemsize == 2:
            table = self._scaled(np.arange(2**16))  # several times faster
            return np.take(table, values)
        return self._scaled(values)

    def _scaled(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        share = (values.astype(np.float64) - self.low) / (self.high - self.low)
        return np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)

    def to_json(self) -> list[float]:
        """The two numbers; `DeepRange.of` reads them."""
        return [self.low, self.high]

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class DeepValues:
    """What an image of more than 8 bits holds."""

    least: float
    largest: float
    usual: DeepRange  # how it is read when no range is given
    colour: bool = False  # colours of 16 bits: only the upper 8 bits are read, and no range applies


def warn_if_dark(name: str, values: DeepValues) -> None:
    """Say once per process, in the log, that a deep image was read as nearly black. `name`: the image in the message.

    An image without any value above black is only black, as the cover of a lens is.
    """
    brightest = int(values.usual.to_8_bits(np.array([values.largest]))[0])
    if values.largest > values.usual.low and brightest < NEARLY_BLACK and _first_warning.acquire(blocking=False):
        _log.warning(
            "%s has values up to %g of %g and is nearly black as read; train with data.deep_range, or set "
            "detector.deep_range (of other images like it, nothing more is said)",
            name,
            values.largest,
            values.usual.high,
        )


def range_of(detector: object) -> DeepRange | None:
    """The range by which a detector's deep images are read, if it has one: that of its training."""
    found = getattr(detector, "deep_range", None)
    return found if isinstance(found, DeepRange) else None


def usual_range(mode: str, largest: float) -> DeepRange:
    """The range by which a deep image is read when none is given, by its mode in Pillow and its largest value.

    It is the range of the type and not that of the values. Mode I holds 16 bits in most files (32 bits when a value
    needs them). The range of mode F is [0, 1], else [0, 255], else 16 bits.
    """
    if mode == "F" and largest <= 255:
        return DeepRange(0.0, 1.0 if largest <= 1 else 255.0)
    return DeepRange(0.0, _32_BITS if mode == "I" and largest > _16_BITS else _16_BITS)
