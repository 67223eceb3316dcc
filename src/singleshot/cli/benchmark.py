"""`singleshot benchmark`: how fast detectors are here, with every engine, and where the time goes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.dataset import add_reading, reading
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, whole
from singleshot.devices import METAVAR
from singleshot.errors import short
from singleshot.ranges import MOST_IMAGES, MOST_PIXELS
from singleshot.terminal import say

EPILOG = """\
MODEL is a detector's file, or a name of `singleshot models`, which gets random weights. Times are from image file to
detections. Without --image and --data pictures are generated, and the scores are made: a stated share of them passes
the threshold, so that post-processing has to do what it has with a trained detector. AP is measured with --data only.
`of limit` is the share of the machine's own rate of matrix products, in that precision, that the network reaches."""

MOST_ROUNDS = 10_000
MOST_THREADS = 1_000


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("benchmark", "Measures how fast detectors are on this machine.", EPILOG)
    parser.usage = "singleshot benchmark MODEL|NAME... [flags]"
    parser.add_argument("models", metavar="MODEL|NAME", nargs="+", help="files of detectors, or names of variants")
    add = parser.add_argument
    add("--batch-size", nargs="+", type=whole(1, MOST_IMAGES), default=[1], metavar="N", help="images of a call (1)")
    add("--engine", nargs="+", metavar="NAME", help="torch, onnxruntime, openvino (default: all that are installed)")
    add("--precision", nargs="+", metavar="NAME", help="fp32, bf16, int8 (default: all that are possible)")
    add("--size", nargs="+", type=_size, metavar="N|HxW", help="input sizes, instead of the detector's own")
    add(
        "--threads",
        type=whole(1, MOST_THREADS),
        metavar="N",
        help="threads that compute (default: the engine's own)",
    )
    add("--rounds", type=whole(1, MOST_ROUNDS), default=10, metavar="N", help="how often all take turns (default: 10)")
    add("--image", nargs="+", metavar="FILE", help="image files to detect in")
    add("--data", metavar="DATA", help="a dataset to detect in; AP is measured too")
    add("--split", metavar="NAME", help="the split of --data (default: val, else test, else the only one)")
    add_reading(parser)
    add("--device", default="cpu", metavar=METAVAR, help="where to compute (default: cpu)")
    add("--plot", metavar="FILE", help="draw speed against accuracy (without --data: against GFLOPs)")
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Measure, print and draw."""
    from singleshot.benchmarking import benchmark
    from singleshot.benchmarking.plot import check

    if options.plot is not None:
        check(options.plot)
    found = benchmark(
        options.models,
        batch_size=options.batch_size,
        engine=options.engine,
        precision=options.precision,
        size=options.size,
        threads=options.threads,
        rounds=options.rounds,
        image=options.image or (),
        data=options.data,
        split=options.split,
        **reading(options),
        device=options.device,
        tell=say,
    )
    if options.plot is not None and found.lines:
        found.plot(options.plot)
        say(f"the plot is in {options.plot}")
    return Result(found.to_json(), found.table(), interrupted=not found.complete)


def _size(text: str | int | tuple[int, int]) -> int | tuple[int, int]:
    if not isinstance(text, str):  # jsonargparse checks a value again
        return text
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text)
    numbers = [int(number) for number in match.groups() if number is not None] if match else [0]
    if not all(1 <= number <= MOST_PIXELS for number in numbers):
        raise argparse.ArgumentTypeError(
            f"expected pixels such as 320, or height and width such as 288x384, at most {MOST_PIXELS:,}, "
            f"got {short(text)}"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
