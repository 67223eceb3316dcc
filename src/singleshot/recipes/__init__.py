"""Recipes by name: the published settings, and `finetune` for data of one's own.

A recipe is plain data: listing or reading them imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from singleshot.errors import UserError, did_you_mean
from singleshot.plain_data import load_yaml
from singleshot.recipes import coco, finetune, ilsvrc, iou_retinanet, refinedet, retinanet, voc
from singleshot.training.recipe import Recipe, from_tree

_RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for family in (finetune, voc, coco, ilsvrc, refinedet, retinanet, iou_retinanet)
    for recipe in family.RECIPES
}


def names() -> tuple[str, ...]:
    """Every recipe, those of a family together."""
    return tuple(_RECIPES)


def get(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UserError: there is no recipe of this name; the nearest names are given.
    """
    if name in _RECIPES:
        return _RECIPES[name]
    hint = did_you_mean(name, _RECIPES, otherwise="`singleshot recipes` lists them.")
    raise UserError(f"unknown recipe {name!r}; {hint} The name of a file ends in .yaml or .yml")


def load(name_or_file: str | Path) -> Recipe:
    """A recipe by its name, or from a YAML file.

    A file may build on a named recipe, or on another file beside it, with `recipe: NAME`; what it does not say comes
    from there. Its own `name`, if it gives none, is the file's.
    """
    if str(name_or_file) in _RECIPES:
        return get(str(name_or_file))
    path = Path(name_or_file)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return get(str(name_or_file))
    return _load_file(path, ())


def _load_file(path: Path, seen: tuple[Path, ...]) -> Recipe:
    if path.resolve() in seen:
        raise UserError(f"{path}: this recipe builds on itself; change its line `recipe:`")
    tree = load_yaml(path)
    base = Recipe(start="file")  # it says nothing of builder and arguments
    if "recipe" in tree:
        named = str(tree.pop("recipe"))
        if named in _RECIPES or not named.lower().endswith((".yaml", ".yml")):
            base = get(named)
        else:
            base = _load_file(path.parent / named, (*seen, path.resolve()))
    tree.setdefault("name", path.stem)
    if base.start == "file" and tree.keys() & {"builder", "arguments"}:
        tree.setdefault("start", "own")  # but this file does
    return from_tree(tree, where=str(path), base=base)
