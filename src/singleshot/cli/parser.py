"""The parser of one verb: jsonargparse, but an error is one message that names the flag that was meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from singleshot.errors import UserError, did_you_mean, in_brackets
from singleshot.flags import device as device
from singleshot.flags import fraction as fraction
from singleshot.flags import number as number
from singleshot.flags import whole as whole


class VerbParser(ArgumentParser):
    """A verb's arguments; every verb also has `--json`. `elsewhere`: a flag's name in other tools -> its name here."""

    def __init__(
        self, verb: str, description: str, epilog: str | None = None, *, elsewhere: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            prog=f"singleshot {verb}",
            description=description,
            epilog=epilog,
            exit_on_error=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,  # no types, no `null` in help
            allow_abbrev=False,
        )
        self._elsewhere = dict(elsewhere or {})
        self.add_argument("--json", action="store_true", help="print one JSON document on stdout; logs go to stderr")

    def parse(self, words: Sequence[str]) -> Namespace:
        """The options; a mistake is a `UserError`."""
        try:
            return self.parse_args(list(words))
        except ArgumentError as error:
            raise UserError(self._tell(str(error)), f"`{self.prog} --help` lists all arguments") from None

    def format_help(self, *given: Any) -> str:
        """The help text, ending in one newline."""
        return f"{super().format_help(*given).rstrip()}\n"  # jsonargparse 4.53 and newer give a formatter

    def flags(self) -> list[str]:
        """Every flag that is known here."""
        return [flag for action in self._actions for flag in action.option_strings]

    def _tell(self, message: str) -> str:
        if unknown := re.match(r"unrecognized arguments: (\S+)", message, re.IGNORECASE):
            word = unknown[1].partition("=")[0]
            if (own := self._elsewhere.get(word.lower().replace("_", "-"))) is not None:
                return f"{word!r} is called {own} here"
            return f"{word!r} is not expected here{in_brackets(did_you_mean(word, self.flags(), number=1, show=repr))}"
        return message.removeprefix("argument ")


def take_overrides(
    words: Sequence[str], flags: Collection[str], fields: Callable[[], Collection[str]]
) -> tuple[list[str], dict[str, str]]:
    """Take the settings of a recipe's fields (`--optimizer.lr 0.01`, `--optimizer.lr=0.01`) out of a command line.

    Args:
        flags: the verb's own flags. Another flag without a dot is looked up in `fields`.
        fields: gives the recipe's field names. It is called only if needed, because it takes an import.

    Returns:
        The other words, and the pairs of key and value; values are still text.
    """
    others: list[str] = []
    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        match = re.fullmatch(r"--([A-Za-z][\w-]*(?:\.[\w-]+)*)(?:=(.*))?", word, re.DOTALL)
        key = match[1].replace("-", "_") if match else ""
        if match is None or f"--{match[1]}" in flags or ("." not in key and key not in fields()):
            others.append(word)
            continue
        value = match[2]
        if value is None:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--{match[1]} needs a value, as in `--{match[1]} VALUE`")
            value = rest.pop(0)
        if key in pairs:
            raise UserError(f"--{match[1]} is given twice: {pairs[key]!r} and {value!r}; leave one of them out")
        pairs[key] = value
    return others, pairs
