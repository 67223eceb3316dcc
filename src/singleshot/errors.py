"""The one error that a user can cause."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: the message says what came, what was expected and what to do.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary `ValueError`.
    """
