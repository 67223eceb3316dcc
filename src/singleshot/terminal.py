"""What people read on a terminal: every line can be shown, whatever names it holds and whatever the encoding."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from singleshot.errors import readable_lines


def say(text: str, stream: TextIO | None = None) -> None:
    """Print lines for people to read, by default on stderr, and flush. The newlines must be our own.

    When nobody reads stderr any more (the terminal was closed), nothing happens: the exit code still tells the result.
    """
    if stream is not None:
        put(readable_lines(text), stream)
        return
    with suppress(OSError):
        put(readable_lines(text), sys.stderr)


def put(text: str, stream: TextIO) -> None:
    """Print text as it is, but with escapes for letters that the encoding of the stream does not have."""
    encoding = stream.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
