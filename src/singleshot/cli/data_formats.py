"""`singleshot data formats`: every dataset format, and how it looks."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser

EPILOG = """\
The format of a dataset is recognised. If a folder holds several formats, choose one with --format NAME."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    return VerbParser("data formats", "Lists the dataset formats.", EPILOG).parse(words)


def run(options: Namespace) -> Result:
    """List the table."""
    from singleshot.data.formats import FORMATS, load

    found = [{"name": name, **load(name).to_json()} for name in FORMATS]
    lines = []
    for one in found:
        able = " and ".join(word for word, key in (("read", "reads"), ("written", "writes")) if one[key])
        lines += [
            f"{one['name']}  ({able})",
            f"  looks like  {one['looks_like']}",
            f"  holds       {', '.join(one['holds'])}",
        ]
    return Result(found, "\n".join(lines))
