"""`singleshot data split`: divide the images of a dataset into train and val."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.dataset import add_data, add_reading, reading
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, number, whole

EPILOG = """\
Writes two lists, train and val, beside the data: ImageSets/Main/*.txt in a VOC folder, instances_*.json beside a COCO
file. No other file is changed, and no list is overwritten. The images are drawn at random; the same --seed draws the
same images. If possible, every class has its share in both parts."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("data split", "Divides the images of a dataset into train and val.", EPILOG)
    parser.usage = "singleshot data split DATA [flags]"
    add = parser.add_argument
    add_data(parser)
    add("--val", type=number, default=0.2, metavar="SHARE", help="share of the images for validation (default: 0.2)")
    add("--split", metavar="NAME", help="the split to divide (default: the only one)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the random choice (default: 0)")
    add_reading(parser)
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """Write the lists, and print where they are."""
    from singleshot.data.divide import write_parts

    parts = write_parts(options.data, options.val, split=options.split, seed=options.seed, **reading(options))
    document = {part: {"file": str(file), "images": images} for part, (file, images) in parts.items()}
    return Result(document, "\n".join(f"{part}: {images} images, {file}" for part, (file, images) in parts.items()))
