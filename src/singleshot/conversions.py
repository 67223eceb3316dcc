"""Strict conversion of what files say: numbers, whole numbers, ids, flags and names.

Files write one thing in several ways: `0`, `0.0`, `"0"` and `false`. What is clear is taken. The rest is refused, never
guessed: Python's own `bool("0")` is true, and `float("nan")` is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from typing import Any

from singleshot.errors import short

FARTHEST = 1e9
"""No coordinate of a box is farther away, in pixels: such a number is an error of the file. Nor is a score."""

_LONGEST = 4_096  # letters of a name: no path that a system opens is longer
_LARGEST = 2**63  # whole numbers from here on are no ids or counts; numpy and other readers cannot hold them either
_DIGITS = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
# Control characters, other signs that end a line, and halves of characters: no name has them, and no file or terminal
# takes all of them.
_NO_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("0", "0.0", "false", "no"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
}


class Unclear(ValueError):
    """A value is not clearly what is expected; the message goes on after its name: `is "maybe", expected ...`."""


def number(value: Any, *, finite: bool = True) -> float:
    """A number: `12.5`, `3`, `"12.5"`.

    With `finite=False` NaN and infinity are taken too, for numbers that are looked at later; a number too large for a
    float is then infinite.

    Raises:
        Unclear: anything else, such as NaN, `"12,5"`, true, or nothing at all.
    """
    kind = type(value)
    if kind is float and value - value == 0.0:  # nearly always: there are millions of them
        return value  # type: ignore[no-any-return]
    if kind is str:
        text = value.strip()
        if _DIGITS.fullmatch(text) or (not finite and _NOT_FINITE.fullmatch(text)):
            found = float(text)
        else:
            raise Unclear(f"is {short(value)}, expected a number")
    elif isinstance(value, int | float) and kind is not bool:
        try:
            found = float(value)
        except OverflowError:
            found = math.inf if value > 0 else -math.inf
    else:
        raise Unclear(f"is {short(value)}, expected a number")
    if finite and not math.isfinite(found):
        raise Unclear(f"is {short(value)}, expected a finite number")
    return found


def whole(value: Any) -> int:
    """A whole number: `3`, `3.0`, `"3"`.

    Raises:
        Unclear: anything else, such as `3.5`, true, or a number of 64 bits or more.
    """
    if type(value) is int and -_LARGEST <= value < _LARGEST:
        return value
    if type(value) is str and re.fullmatch(r"[+-]?[0-9]{1,20}", value.strip()):
        found = int(value)
    else:
        exact = number(value)
        if not exact.is_integer():
            raise Unclear(f"is {short(value)}, expected a whole number")
        found = int(exact)
    if not -_LARGEST <= found < _LARGEST:
        raise Unclear(f"is {short(value)}, expected a whole number of less than 64 bits")
    return found


def identifier(value: Any) -> int | str:
    """An id: a whole number, or a text, which stays as it is (`"1"` is not 1). 3.0 becomes 3.

    Raises:
        Unclear: anything else, such as 3.5, true, an empty text, a text with control characters, a number of 64 bits.
    """
    if type(value) is int and -_LARGEST <= value < _LARGEST:  # True is not an id, but isinstance would take it as 1
        return value
    if type(value) is str:
        return name(value)
    if isinstance(value, int | float) and type(value) is not bool:
        return whole(value)
    raise Unclear(f"is {short(value)}, expected a number or a string")


def joined(key: int | str | None, known: Container[int | str]) -> int | str | None:
    """The known id that is meant: the same, else the one that is the same as text (7 for `"7"`), else None."""
    if key is None or key in known:
        return key
    if isinstance(key, int):
        other: int | str | None = str(key)
    else:
        digits = key.isascii() and key.removeprefix("-").isdecimal() and len(key) <= 20
        other = int(key) if digits and str(int(key)) == key else None
    return other if other is not None and other in known else None


def flag(value: Any) -> bool:
    """Yes or no: true, `1`, `1.0`, `"1"`, `"true"`, `"yes"`, and their opposites; upper case counts as lower case.

    Raises:
        Unclear: anything else, such as 2, NaN, `"maybe"`, or nothing at all.
    """
    kind = type(value)
    if (kind is int or kind is bool or kind is float) and (value == 0 or value == 1):
        return bool(value)
    if kind is str and (found := _FLAGS.get(value.strip().lower())) is not None:
        return found
    raise Unclear(f"is {short(value)}, expected 0 or 1 (or false or true)")


def name(value: Any) -> str:
    """A name of a class or a file: a text that is not empty.

    Raises:
        Unclear: anything else, a text of more than 4,096 letters, and one with control characters (NUL, a new line) or
            with half of a character (a lone surrogate), which no file or terminal can take.
    """
    if type(value) is not str or not value:
        raise Unclear(f"is {short(value)}, expected a text that is not empty")
    if len(value) > _LONGEST:
        raise Unclear(f"is a text of {len(value):,} letters, expected a name of at most {_LONGEST:,}")
    if not value.isprintable() and (found := _NO_NAME.search(value)):
        what = "half of a character" if "\ud800" <= found[0] <= "\udfff" else "a control character"
        raise Unclear(f"is {short(value)}, which has {what} (U+{ord(found[0]):04X}); expected a plain name")
    return value
