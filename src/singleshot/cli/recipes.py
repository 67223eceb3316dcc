"""`singleshot recipes`: list the named recipes, or print one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser

if TYPE_CHECKING:
    from singleshot.training.recipe import Recipe

EPILOG = """\
With NAME, prints the recipe as YAML: the published figures first, then every setting with its value and its meaning.
Save it, change it, and give the file to `singleshot train DATA --recipe FILE`.
The published figures were measured by others. They are not a promise."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    parser = VerbParser("recipes", "Lists the recipes that `train --recipe` knows, or prints one.", EPILOG)
    parser.usage = "singleshot recipes [NAME|FILE] [flags]"
    parser.add_argument("name", metavar="NAME|FILE", nargs="?", help="print this recipe with all its settings")
    return parser.parse(words)


def run(options: Namespace) -> Result:
    """List them, or print one."""
    from singleshot import recipes
    from singleshot.plain_data import to_plain
    from singleshot.recipes.commented import commented_yaml

    if options.name is not None:
        recipe = recipes.load(options.name)
        return Result(to_plain(recipe), commented_yaml(recipe).rstrip("\n"))
    found = [recipes.get(name) for name in recipes.names()]
    header = ["name", "detector", "images a step", "length", "published"]
    return Result([_document(recipe) for recipe in found], table([_row(recipe) for recipe in found], header=header))


def _row(recipe: Recipe) -> list[Any]:
    unit = str(recipe.schedule.unit)
    length = f"{getattr(recipe.schedule, unit):,g} {unit}"
    published = ", ".join(f"{one.value:g} ({one.metric})" for one in recipe.expected)
    return [recipe.name, recipe.builder, recipe.batch_size * recipe.optimizer.accumulate, length, published or None]


def _document(recipe: Recipe) -> dict[str, Any]:
    from singleshot.training.recipe import LENGTHS

    return {
        "name": recipe.name,
        "builder": recipe.builder,
        "batch_size": recipe.batch_size,
        **{unit: getattr(recipe.schedule, unit) for unit in LENGTHS},
        "published": [vars(one) for one in recipe.expected],
    }
