"""`--sweep NAME=VALUES` of `singleshot evaluate`: the number to vary, and the post-processing for each value."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from singleshot.errors import UserError, short

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector
    from singleshot.evaluation.sweep import Value
    from singleshot.postprocess import Postprocess

PRODUCT = "product"  # for iou_alpha and the factors of other outputs: no alpha, p * IoU
# soft_nms: greedy suppression; vote: no voting; candidates_of_image: no limit; also accepted for PRODUCT
NONE = "none"
_WORDS = f"{PRODUCT} is for iou_alpha and other outputs, {NONE} for soft_nms, vote and candidates_of_image"
_FACTOR = "_alpha"  # the names of such factors end in this
_MOST = 1000  # values of one sweep
_SMALLEST = Decimal("1e-9")  # number, apart from 0


@dataclass(frozen=True)
class Sweep:
    """The value of `--sweep`."""

    name: str
    values: tuple[Value, ...]


def sweep_of(text: str) -> Sweep:
    """Read the flag: `nms=0.4,0.5,0.6`, or `iou_alpha=product,1,0.9,...,0`, where the dots continue in equal steps."""
    name, sign, values = text.partition("=")
    name = name.strip().replace("-", "_")
    words = [word.strip() for word in values.split(",")]
    if not (name and sign and all(words)):
        raise UserError(f"--sweep: expected NAME=VALUE,VALUE,..., as in iou_alpha=1,0.5,0, got {text!r}")
    found: list[Value] = []
    for place, word in enumerate(words):
        if word in ("...", "…"):
            found += _between(words, place)
        elif word in (PRODUCT, NONE):
            found.append(PRODUCT if name.endswith(_FACTOR) else word)
        else:
            found.append(float(_number(word)))
    if len(found) > _MOST:
        raise UserError(f"--sweep: expected at most {_MOST} values, got {len(found)}; use larger steps")
    return Sweep(name, tuple(dict.fromkeys(found)))


def _between(words: list[str], place: int) -> list[float]:
    """The numbers that the dots at a place stand for."""
    if place < 2 or place + 1 >= len(words):
        raise UserError("--sweep: '...' needs two numbers before it and one after it, as in 1,0.9,...,0")
    before, first, last = (_number(words[k]) for k in (place - 2, place - 1, place + 1))
    step = first - before  # decimal numbers: 1 - 0.1 - 0.1 is 0.8
    count = (last - first) / step if step else Decimal(-1)
    if count < 1 or count != int(count):
        raise UserError(f"--sweep: steps of {step} from {first} do not end at {last}; write all values")
    return [float(first + step * k) for k in range(1, min(int(count), _MOST + 1))]


def _number(word: str) -> Decimal:
    try:
        value = Decimal(word)
    except InvalidOperation:
        value = Decimal("nan")
    # A number with an exponent of a million digits takes Python for ever to write down as a whole number.
    if not value.is_finite() or not (value == 0 or _SMALLEST <= abs(value) <= 1 / _SMALLEST):
        raise UserError(f"--sweep: expected numbers between the commas ({_WORDS}), got {short(word)}")
    return value


def postprocesses(asked: Sweep, detector: Detector, model: str) -> dict[Value, Postprocess]:
    """The post-processing of a detector for each value.

    Raises `UserError`, with the model's file, if the detector does not have this number or cannot take a value.
    """
    from singleshot.postprocess import OPTIONAL, VARIED, numbers, vary

    if asked.name not in numbers():
        raise UserError(f"--sweep {asked.name}: expected one of {', '.join(numbers())}")
    whole = asked.name in VARIED and VARIED[asked.name][1] is int
    without = PRODUCT if asked.name.endswith(_FACTOR) else NONE if asked.name in OPTIONAL else None
    found: dict[Value, Postprocess] = {}
    for value in asked.values:
        try:
            if isinstance(value, float):
                found[int(value) if whole else value] = vary(detector.postprocess, asked.name, value)
            elif value == without:
                found[value] = vary(detector.postprocess, asked.name, None)
            else:
                raise UserError(f"expected numbers, got {value!r} ({_WORDS})")
        except UserError as error:
            raise UserError(f"--sweep {asked.name}: {model}: {error}") from None
    return found
