"""The one error that a user can cause, and what it says of a word that is nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message says what came, what was expected and what to do.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary `ValueError`.
    """


def did_you_mean(word: str, known: Iterable[str], *, otherwise: str = "", number: int = 3, cutoff: float = 0.6) -> str:
    """`did you mean a or b?` of the known words that are like this one; where none is, what to say `otherwise`."""
    near = difflib.get_close_matches(word, list(known), n=number, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
