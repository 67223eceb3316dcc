"""`singleshot demo`: the whole tour on a generated dataset."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, whole

EPILOG = """\
Draws pictures of shapes with their boxes, trains a small SSD on them, measures it on pictures that it has not seen,
and draws what it finds there. Takes at most three minutes on two CPU cores, also beside other work, and downloads
nothing."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("demo", "The whole tour: draw a dataset, train, evaluate, draw what is found.", EPILOG)
    parser.add_argument("--out", metavar="DIR", help="a new folder for all files (default: the next free runs/demo-N)")
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of the pictures and the training (default: 0)"
    )
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Run the demo. It reports its progress on stderr."""
    from singleshot.demo import run_demo

    outcome = run_demo(options.out, options.seed)
    return Result({key: outcome[key] for key in ("voc10", "coco", "seconds", "run")}, outcome["text"])
