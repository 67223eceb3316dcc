"""The one error that a user can cause, and how its message speaks of a value, of many names, of a word nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class UserError(ValueError):
    """Bad input: the message says what came, what was expected and what to do.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary `ValueError`.
    """


def did_you_mean(
    word: str,
    known: Iterable[str],
    *,
    otherwise: str = "",
    number: int = 3,
    cutoff: float = 0.6,
    show: Callable[[str], str] = str,
) -> str:
    """`did you mean a or b?` of the known words that are like this one; where none is, what to say `otherwise`.

    Upper and lower case count as the same. `show` gives the form in which a word is told, such as `repr`.
    """
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    near = difflib.get_close_matches(word.casefold(), list(folded), n=number, cutoff=cutoff)
    return f"did you mean {' or '.join(show(folded[one]) for one in near)}?" if near else otherwise


def in_brackets(hint: str) -> str:
    """A hint for the middle of a sentence: ` (did you mean a?)`; nothing where there is no hint."""
    return f" ({hint})" if hint else ""


def short(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def some(names: Sequence[str], what: str = "", *, limit: int = 4) -> str:
    """The first names: `a, b and 3 more`; with `what`, after their number: `5 missing: a, b and 3 more`."""
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{f'{len(names)} {what}: ' if what else ''}{', '.join(names[:limit])}{more}"
