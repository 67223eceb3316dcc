"""`singleshot train`: train a detector on your images."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.cli.dataset import add_data, add_reading
from singleshot.cli.output import Result
from singleshot.cli.parser import VerbParser, device, number, take_overrides, whole
from singleshot.devices import METAVAR
from singleshot.errors import UserError

if TYPE_CHECKING:
    from singleshot.training.recipe import Recipe

EPILOG = """\
Any field of the recipe can be set by its dotted name:
  --optimizer.lr 0.01 --arguments.image_size 320 --schedule.kind cosine
RUN/recipe.yaml holds every field, with its value, after the start. Ctrl-C saves; --resume RUN continues from there."""

DEFAULT_RECIPE = "finetune"

# Flags that are another name for a field of the recipe.
FIELDS = {
    "data": "data.path",
    "format": "data.format",
    "split": "data.split",
    "val_split": "data.val_split",
    "skip_bad": "data.skip_bad",
    "allow_outside": "data.allow_outside",
    "epochs": "schedule.epochs",
    "minutes": "schedule.minutes",
    "batch_size": "batch_size",
    "seed": "seed",
    "cache": "data.cache",
    "device": "compute.device",
    "builder": "builder",
    "backbone_weights": "arguments.backbone_weights",
    "from": "start_from",
}


# Flags of other tools, and what they are called here.
ELSEWHERE = {
    "--imgsz": "--arguments.image_size",
    "--img-size": "--arguments.image_size",
    "--image-size": "--arguments.image_size",
    "--batch": "--batch-size",
    "--lr": "--optimizer.lr",
    "--lr0": "--optimizer.lr",
    "--learning-rate": "--optimizer.lr",
    "--weight-decay": "--optimizer.weight_decay",
    "--momentum": "--optimizer.momentum",
    "--warmup": "--schedule.warmup_steps",
    "--steps": "--schedule.steps",
    "--time": "--minutes",
    "--patience": "--validation.patience",
    "--workers": "--data.workers",
    "--freeze": "--arguments.frozen_stages",
    "--backbone": "--arguments.backbone",
    "--weights": "--backbone-weights (of a backbone) or --from (a trained detector)",
    "--pretrained": "--backbone-weights (of a backbone) or --from (a trained detector)",
    "--model": "--builder (a new one) or --from (a trained one)",
    "--config": "--recipe",
    "--cfg": "--recipe",
    "--data": "DATA, the first word after train,",
    "--name": "--out",
    "--project": "--out",
    "--work-dir": "--out",
    "--output-dir": "--out",
    "--data-path": "DATA, the first word after train,",
    "--num-workers": "--data.workers",
    "--batchsize": "--batch-size",
    "--checkpoint": "--from",
    "--resume-from": "--resume",
    "--accumulate": "--optimizer.accumulate",
    "--cos-lr": "--schedule.kind cosine",
    "--warmup-epochs": "--schedule.warmup_steps",
    "--conf": "--arguments.threshold (of the detector's candidates)",
    "--iou": "--arguments.nms",
    "--max-det": "--arguments.detections",
    "--amp": "--compute.precision bf16",
    "--compile": "--compute.compile true",
}


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb. `overrides` holds the recipe's fields that are set by their dotted names."""
    about = "Trains a detector on your images. The format of the data is detected automatically."
    parser = VerbParser("train", about, EPILOG, elsewhere=ELSEWHERE)
    parser.usage = "singleshot train DATA [flags] [--key.sub value ...]\n       singleshot train --resume RUN"
    add_data(parser, optional=True)
    add = parser.add_argument
    add("--recipe", metavar="NAME|FILE", help=f"the name of a recipe, or a YAML file (default: {DEFAULT_RECIPE})")
    add("--out", metavar="RUN", help="a new folder for the run (default: the next free runs/RECIPE-N)")
    add("--split", metavar="NAME", help="the split to train on (default: train)")
    add("--val-split", metavar="NAME", help="the split to validate on (default: val, if there is one)")
    add("--epochs", type=number, metavar="N", help="passes over the images (default: the recipe's)")
    add("--minutes", type=number, metavar="N", help="length in minutes of wall clock, in place of --epochs")
    add("--batch-size", type=whole(1), metavar="N", help="images per step (default: the recipe's)")
    add("--seed", type=whole(0), metavar="N", help="the seed of all random numbers (default: the recipe's)")
    add("--device", type=device, metavar=METAVAR, help="where to compute (default: cuda if there is one)")
    add(
        "--backbone-weights",
        metavar="FILE|NAME",
        help="pretrained weights for the backbone: a file, or imagenet, or a name that `singleshot download` lists "
        "(fetched if it is not here)",
    )
    add(
        "--from",
        metavar="MODEL|NAME",
        help="start from a trained detector, whose classes may differ: its file, or coco, or a name that `singleshot "
        "download` lists",
    )
    add("--resume", metavar="RUN", help="continue a stopped run exactly")
    add("--skip-bad", action="store_true", help="leave out images in which the check finds errors, instead of stopping")
    add(
        "--cache",
        choices=("none", "ram", "disk"),
        help="keep decoded images for the next epochs; the run says first how much that takes (default: none)",
    )
    add_reading(parser)
    add("--builder", metavar="NAME", help="a builder of this package, or your own as my_lab.models:my_detector")
    words, overrides = take_recipe_fields(words, parser.flags())
    options = parser.parse(words)
    options["overrides"] = overrides
    return options


def run(options: Namespace) -> Result:
    """Train, and print where the results are."""
    from singleshot.cli.model import allow_local_imports
    from singleshot.training import train

    allow_local_imports()  # for --builder
    result = train(choose_recipe(options), out=options.out, resume=options.resume)
    document = {"run": result.run, "best": result.best, "last": result.last, "metrics": result.metrics}
    silent = os.environ.get("RANK", "0") != "0"  # torchrun starts the whole command several times
    return Result(document, f"best: {result.best}\nlast: {result.last}", silent=silent)


def choose_recipe(options: Namespace) -> Recipe:
    """The named recipe, or that of the run to continue, with the changes of the command line."""
    from singleshot import recipes
    from singleshot.training.resolve import resume_with, with_changes

    named = None if options.recipe is None else recipes.load(options.recipe)
    if options.resume is not None:
        recipe = resume_with(options.resume, named, file=options.recipe not in recipes.names())
    else:
        recipe = named or recipes.load(DEFAULT_RECIPE)
    changes: dict[str, Any] = dict(options.overrides)
    for flag, key in FIELDS.items():
        if (value := options[flag]) is None or value is False:  # not `not value`: a seed of 0 is a value
            continue
        if key in changes:
            raise UserError(f"--{flag.replace('_', '-')} and --{key} are the same: leave one of them out")
        if key.startswith("arguments."):
            if not value:
                raise UserError(f"--{flag.replace('_', '-')} is empty: give it a file, or leave it out")
            value = json.dumps(value)  # quoted, since YAML could read a comment or a list in a path
        changes[key] = value
    recipe = with_changes(recipe, changes)
    if recipe.data.path is None:
        raise UserError("train needs DATA, the folder or file to train on, or --resume RUN to continue a run")
    return recipe


def take_recipe_fields(words: Sequence[str], flags: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Split a command line into the other words and the pairs that set a recipe's fields (`take_overrides`)."""

    def fields() -> Collection[str]:
        from singleshot.training.recipe import Recipe

        return [name for name in Recipe.__dataclass_fields__ if f"--{name}" not in ELSEWHERE]

    return take_overrides(words, flags, fields)
