"""`singleshot data show`: draw the labelled boxes, as they are in the files or as training sees them."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli import train
from singleshot.cli.dataset import add_data, add_deep_range, add_reading, reading, say_elsewhere
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, whole
from singleshot.errors import UserError
from singleshot.paths import to_path
from singleshot.ranges import MOST_IMAGES

EPILOG = """\
Draws images and their boxes on one sheet, FILE.png. With --recipe it draws the first images of a training run,
augmented and at the network's size. Then every setting of `train` can be given, such as
--augmentation.jitter [0.5,1.5]."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb. As for `train`, `overrides` holds the fields of the recipe that are set by name."""
    parser = VerbParser("data show", "Draws the labelled boxes of a dataset.", EPILOG)
    parser.usage = "singleshot data show DATA --out FILE.png [flags] [--recipe NAME|FILE [--key.sub value ...]]"
    add = parser.add_argument
    add_data(parser)
    add("--out", metavar="FILE.png", help="where to write the sheet; no file is overwritten")
    add("--number", type=whole(1, MOST_IMAGES), default=12, metavar="N", help="number of images (default: 12)")
    add("--split", metavar="NAME", help="the split to draw from (default: train, else the only one)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the choice and the augmentation (default: 0)")
    add_reading(parser)
    add_deep_range(parser)
    add("--recipe", metavar="NAME|FILE", help="draw the images as training with this recipe sees them")
    words, overrides = train.take_recipe_fields(words, parser.flags())
    options = parser.parse(words)
    if options.out is None:
        raise UserError("data show needs --out FILE.png, the file to write the sheet to")
    if overrides and options.recipe is None:
        raise UserError(
            f"--{next(iter(overrides))} is a setting of a recipe: give the recipe too, such as --recipe finetune"
        )
    options["overrides"] = overrides
    return options


def run(options: Namespace) -> Result:
    """Draw the sheet, and print where it is."""
    from singleshot.inference import samples

    out = to_path(options.out)
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the sheet is a PNG picture; give the name of a file that ends in .png")
    if out.exists():
        raise UserError(f"--out {out}: this file exists already; choose another name")
    if options.recipe is None:
        from singleshot.data.deep import DeepRange
        from singleshot.data.open import open_dataset
        from singleshot.training.setup import TRAIN_SPLITS

        dataset = open_dataset(options.data, split=options.split, prefer=TRAIN_SPLITS, **reading(options))
        say_elsewhere(dataset)
        pictures = samples.labelled(dataset, options.number, options.seed, deep_range=DeepRange.of(options.deep_range))
    else:
        from singleshot import recipes
        from singleshot.training.recipe import override

        own = {"data.path": options.data, "data.split": options.split, "data.format": options.format}
        if options.deep_range is not None:
            own["data.deep_range"] = options.deep_range
        changes = {**own, "seed": options.seed, "data.val_split": "none", **options.overrides}
        pictures = samples.as_trained(override(recipes.load(options.recipe), changes), options.number)
    samples.write_sheet(pictures, out)
    return Result({"file": str(out), "images": len(pictures)}, f"{len(pictures)} images: {out}")
