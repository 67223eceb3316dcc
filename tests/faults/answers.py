"""What is a right answer to a bad file: a result, or one readable message that names the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from singleshot.errors import MESSAGE, UserError, escaped

T = TypeVar("T")


def answer(function: Callable[[], T], *, names: str = "") -> T | None:
    """What the function returns; None if it raises a `UserError` as it should be. Everything else goes through.

    A warning of Python or a library is a fault too: a user sees a line of our code and does not know what to do.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function()
    except UserError as error:
        message = str(error)
    assert message.strip(), "an empty message"
    assert len(message) <= MESSAGE, f"a message of {len(message):,} letters"
    hidden = [line for line in message.split("\n") if line != escaped(line)]
    assert not hidden, f"letters that cannot be seen: {hidden[0]!r}"
    assert names in message, f"the message does not name {names}: {message[:500]}"
    return None
