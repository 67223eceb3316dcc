"""The one error that a user can cause, and how its message speaks of a value, of many names, of a word nearly right."""

from __future__ import annotations

import difflib
import itertools
import reprlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

NAME, LINE, MESSAGE = 200, 4_000, 20_000
"""The most characters of a name, of a line and of a whole message; what is longer is cut in its middle."""

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction and other marks, surrogates, ends of lines
_JOINERS = "\u200c\u200d"  # they cannot be seen, but letters of some scripts need them


class UserError(ValueError):
    """Bad input: the message says what came, what was expected and what to do.

    The command line prints the message alone and exits with code 2; from Python it is an ordinary `ValueError`.

    The message may have several `lines`. Each is given by itself, because a newline within one can only come from a
    file or a name: it is shown escaped, like everything else that cannot be seen (`escaped`). What is too long is cut.
    """

    def __init__(self, *lines: object) -> None:
        super().__init__(*(readable(str(line)) for line in lines))

    def __str__(self) -> str:
        return cut("\n".join(map(str, self.args)), MESSAGE)


def escaped(text: str) -> str:
    r"""Text in which everything can be seen: a newline is `\n`, another control character `\x1b`.

    So are marks that turn the direction of writing, and the halves of letters by which Python stands for bytes that are
    no text (lone surrogates). A terminal, a picture or a page can show the result, on one line.
    """
    if text.isprintable():
        return text
    return "".join(letter if _visible(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _visible(letter: str) -> bool:
    return letter in _JOINERS or unicodedata.category(letter) not in _UNSEEN


def cut(text: str, limit: int) -> str:
    """The text, without its middle if it is longer than `limit`; the number of letters left out stands there."""
    if len(text) <= limit:
        return text
    kept = max(limit - 40, 2)  # 40: room for the mark
    begin, end = text[: kept - kept // 3], text[len(text) - kept // 3 :]
    return f"{begin}[... {len(text) - kept:,} letters ...]{end}"


def readable(line: str, limit: int = LINE) -> str:
    """A line that can be shown anywhere: escaped, and cut if it is longer than `limit`."""
    return cut(escaped(cut(line, limit)), limit)


def readable_lines(text: str) -> str:
    """Text of several lines, each of them `readable`. The newlines must be our own."""
    return "\n".join(map(readable, text.split("\n")))


def shown(text: object, limit: int = NAME) -> str:
    """A name or another text from a file or a user, as a message, table or picture shows it: escaped, and cut."""
    return readable(str(text), limit)


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
    """A value as Python writes it, cut where it is long. A value of any size or depth takes no time."""
    text = _BRIEF.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Brief(reprlib.Repr):
    """`repr` of the beginning of a value: few items, few levels."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 8
        self.maxstring = self.maxother = self.maxlong = 100

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """In the order of the mapping; the library sorts the keys."""
        if not x or level <= 0:
            return "{...}" if x else "{}"
        first = itertools.islice(x.items(), self.maxdict)
        items = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in first]
        return f"{{{', '.join([*items, *['...'] * (len(x) > self.maxdict)])}}}"

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write a number of very many digits."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"a number of {x.bit_length():,} bits"


_BRIEF = _Brief()


def some(names: Sequence[str], what: str = "", *, one: str = "", limit: int = 4) -> str:
    """The first names: `a, b and 3 more`; with `what`, after their number: `5 missing: a, b and 3 more`.

    `one` takes the place of `what` after the number 1.
    """
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    said = one if one and len(names) == 1 else what
    return f"{f'{len(names)} {said}: ' if said else ''}{', '.join(map(shown, names[:limit]))}{more}"
