"""`singleshot download`: published weights, by name."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser

EPILOG = """\
Without NAME: the list. Nothing else in singleshot fetches anything unless you name it. A transfer that breaks goes on
where it stopped when you repeat the command; a file appears only when it is the published one. Proxies are those of the
system (https_proxy). A file that you lay into the cache under its own name is taken as if it had been fetched.
The terms of the weights are those of their publishers: they are said before a transfer, and listed by --json."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("download", "Fetches published weights of backbones and detectors by name.", EPILOG)
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to fetch; none: list all names")
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="a folder on the web with the same files, in place of the official address (default: $SINGLESHOT_MIRROR)",
    )
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Fetch one file and print where it lies, or list all."""
    from singleshot import catalogue

    if options.name is not None:
        path = catalogue.download(options.name, mirror=options.mirror)
        return Result({"name": options.name, "path": str(path)}, str(path))
    catalogue.checked_mirror(options.mirror)
    found = [catalogue.described(weights) for weights in catalogue.CATALOGUE.values()]
    rows = [
        [
            one["name"],
            one["detector"] or "backbone",
            one["trained_on"],
            one["published"] or "-",
            one["about_size"] or "-",
            "here" if one["here"] else "in a package" if one["url"] is None else "-",
        ]
        for one in found
    ]
    text = table(rows, header=["name", "for", "trained on", "published", "size", "here"])
    folder = catalogue.cache_folder("weights")
    return Result(found, f"{text}\n\nThe files lie in {folder}. `singleshot download NAME` fetches one.")
