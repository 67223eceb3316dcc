"""What people read on a terminal: every line can be shown, whatever names it holds and whatever the encoding."""

from __future__ import annotations

import sys
from typing import TextIO

from singleshot.errors import readable_lines


def say(text: str, stream: TextIO | None = None) -> None:
    """Print lines for people to read, by default on stderr, and flush. The newlines must be our own."""
    put(readable_lines(text), sys.stderr if stream is None else stream)


def put(text: str, stream: TextIO) -> None:
    """Print text as it is, but with escapes for letters that the encoding of the stream does not have."""
    encoding = stream.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
