"""Multi-scale testing by name: the views of the RefineDet paper's "+" rows, and your own from YAML files.

The paper says only that it uses several scales. The tables here are from the authors' test script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from singleshot.errors import UserError, did_you_mean
from singleshot.multiscale.views import MultiScale, View
from singleshot.paths import to_path
from singleshot.plain_data import from_plain, to_plain
from singleshot.yaml_text import load_yaml

T = TypeVar("T")

_320 = (
    View(side=320),
    View(size=(320, 192), turn=True),
    View(side=192, long_side_above=32),
    View(side=384, short_side_below=160),
    View(side=448, short_side_below=128),
    View(side=512, short_side_below=96),
    View(side=576, short_side_below=64),
    View(side=704, short_side_below=32),
)
_320_COCO = (View(side=640, short_side_below=48),)
_512 = (
    View(side=512),
    View(size=(512, 384), turn=True),
    View(side=256),
    View(side=384),
    View(side=768, short_side_below=192),
    View(side=896, short_side_below=128),
)
_512_COCO = (
    View(side=640, short_side_below=224),
    View(side=1024, short_side_below=96),
    View(side=1152, short_side_below=64),
)


def _coco(name: str, views: tuple[View, ...]) -> MultiScale:
    # The numbers of the ResNet-101 model of 512 pixels, the only one whose file is available. Its suppression is greedy
    # here, although it is soft in the authors' tests at a single scale.
    return MultiScale(views, name, merge="soft_vote", threshold=0.05, candidates=400, nms=0.45, detections=200)


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        MultiScale(_320, "refinedet320_voc"),
        MultiScale(_512, "refinedet512_voc"),
        _coco("refinedet320_coco", _320 + _320_COCO),
        _coco("refinedet512_coco", _512 + _512_COCO),
    )
}


def names() -> tuple[str, ...]:
    """The names of the published ones."""
    return tuple(_RECIPES)


def get(name: str) -> MultiScale:
    """Published multi-scale testing by name.

    Raises:
        UserError: an unknown name; the message gives the nearest ones.
    """
    if name in _RECIPES:
        return _RECIPES[name]
    hint = did_you_mean(name, _RECIPES, otherwise=f"the published ones are: {', '.join(_RECIPES)}.")
    raise UserError(f"unknown multi-scale testing {name!r}; {hint} The name of a file ends in .yaml or .yml")


def load(name_or_file: str | Path) -> MultiScale:
    """Multi-scale testing by name, or from a YAML file that holds the fields of `MultiScale`.

    With `recipe: NAME` a file builds on a published one and sets only what is different. If the file gives no `name`,
    the file's own name is used.

    Raises:
        UserError: an unknown name, or a mistake in the file. The message names the file and the key.
    """
    if str(name_or_file) in ("", *_RECIPES):
        return get(str(name_or_file))
    path = to_path(name_or_file)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return get(str(name_or_file))
    tree = load_yaml(path, "the views of multi-scale testing, such as `views: [{scale: 1}]`")
    if "recipe" in tree:
        try:
            base = get(str(tree.pop("recipe")))
        except UserError as error:
            raise UserError(f"{path}: recipe: {error}") from None
        tree = {**to_plain(base), "name": path.stem, **tree}
    elif "views" not in tree:
        raise UserError(f"{path}: views: expected a list of views, such as `views: [{{scale: 1}}, {{scale: 1.5}}]`")
    tree.setdefault("name", path.stem)
    views = tree["views"]
    if not isinstance(views, (list, tuple)):
        raise UserError(f"{path}: views: expected a list of views, got {views!r}")
    for i, view in enumerate(views):
        _built(View, view, f"views[{i}]", path)  # so that a message can name the view
    return _built(MultiScale, tree, "", path)


def _built(kind: type[T], tree: Any, key: str, path: Path) -> T:
    place = f"{path}: {key}: " if key else f"{path}: "
    if not isinstance(tree, dict):
        raise UserError(f"{place}expected a mapping such as {{side: 384}}, got {tree!r}")
    try:
        return from_plain(kind, tree, where=str(path), path=f"{key}." if key else "")
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith(f"{path}: ") else f"{place}{said}") from None
