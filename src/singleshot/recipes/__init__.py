"""Recipes by name: the published settings, and `finetune` for your own data.

A recipe is plain data: listing or reading recipes does not import torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from singleshot.errors import UserError, did_you_mean
from singleshot.paths import to_path
from singleshot.recipes import coco, finetune, ilsvrc, iou_retinanet, refinedet, retinanet, voc
from singleshot.training.recipe import Recipe, read_tree
from singleshot.training.values import check_values
from singleshot.yaml_text import load_yaml

_RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for family in (finetune, voc, coco, ilsvrc, refinedet, retinanet, iou_retinanet)
    for recipe in family.RECIPES
}


def names() -> tuple[str, ...]:
    """The names of all recipes, grouped by family."""
    return tuple(_RECIPES)


def get(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: there is no recipe of this name. The message gives the nearest names.
    """
    if name in _RECIPES:
        return _RECIPES[name]
    hint = did_you_mean(name, _RECIPES, otherwise="`singleshot recipes` lists them.")
    raise UserError(f"unknown recipe {name!r}; {hint} To give a file, its name must end in .yaml or .yml")


def load(name_or_file: str | Path) -> Recipe:
    """A recipe by its name, or from a YAML file.

    With a line `recipe: NAME` a file builds on a named recipe, or on another file in the same folder. Fields that it
    does not set come from there. Without a line `name:` the recipe is named like the file.
    """
    if str(name_or_file) in ("", *_RECIPES):
        return get(str(name_or_file))
    path = to_path(name_or_file)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return get(str(name_or_file))
    return _load_file(path, ())


def _load_file(path: Path, seen: tuple[str, ...]) -> Recipe:
    if os.path.realpath(path) in seen:
        raise UserError(f"{path}: this recipe builds on itself; change its line `recipe:`")
    tree = load_yaml(path)
    base = Recipe(start="file")  # sets neither builder nor arguments
    if "recipe" in tree:
        named = str(tree.pop("recipe"))
        if named in _RECIPES or not named.lower().endswith((".yaml", ".yml")):
            base = get(named)
        else:
            base = _load_file(path.parent / named, (*seen, os.path.realpath(path)))
    tree.setdefault("name", path.stem)
    if base.start == "file" and tree.keys() & {"builder", "arguments"}:
        tree.setdefault("start", "own")  # but this file sets them
    recipe = read_tree(tree, where=str(path), base=base)
    check_values(recipe, path)  # here, where the file is known
    return recipe
