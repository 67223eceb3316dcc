"""Mutated recipes and files of views: read, checked, and made into a detector without values where accepted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from faults.answers import answer
from faults.kinds import Case, Kind
from faults.trees import DEEP, LITERALS, damage_text, damage_tree, written

from singleshot import recipes
from singleshot.data.dataset import Dataset
from singleshot.multiscale.published import load as load_views
from singleshot.ops.shapes import without_values
from singleshot.training.recipe import Recipe, from_yaml, override, to_yaml
from singleshot.training.resolve import resolve
from singleshot.training.start import build_detector

WORDS = (
    "? ", ": ", "- ", "{", "}", "[", "]", "&a ", "*a", "*b", "<<: ", "<<: *a", "!!python/object/apply:os.system [ls]",
    "!!timestamp x", "!!set {a, b}", "!!omap [a: 1]", "!!binary =", "!!int 1", "!!float x", "!x y", "!!null x", "---\n",
    "...\n", "%YAML 9.9\n", "\t", "|\n", ">\n", "# ", "'", '"', "\\x", "\x00", "\x1b", "\ufeff", "0b", "0x", "1:60:60",
    "1e400", ".nan", ".inf", "-.inf", "~", "yes", "2001-01-01", "= ", "@", "`", "\n", "\n  ", "é", "9" * 5_000,
    "a: &a [x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n", "[" * 2_000, "- " * 2_000, "? " * 500, "{a: " * 500,
    "size: [1, 2]\n", "views: []\n", "optimizer: {lr: 1}\n", "builder: os:system\n", "builder: ssd\n",
)  # fmt: skip
VALUES = (
    *LITERALS,
    ".nan",
    ".inf",
    "-.inf",
    "0b",
    "0o8",
    "1:60",
    "!!set {a}",
    "!!python/name:os.system",
    "*x",
    *DEEP[:2],
)
VIEWS: dict[str, Any] = {
    "views": [{"scale": 1.0}, {"side": 200, "keep": "all"}, {"size": [96, 64], "turn": True}],
    "mirror": True,
    "merge": "vote",
    "iou": 0.5,
}


def _yaml(tree: Any) -> str:
    """A tree with `Raw` in it as YAML text. What is there twice is written once: the library has no other way."""
    return written(tree, lambda plain: yaml.safe_dump(_plain_keys(plain), sort_keys=False, width=100), quote="'")


def _plain_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain_keys(item) for key, item in value.items()}
    return [_plain_keys(item) for item in value] if isinstance(value, list) else value


def make(rng: np.random.Generator, number: int) -> Case:
    """Four in five are recipes, the others views."""
    chance = random.Random(int(rng.integers(2**62)))
    views = chance.random() < 0.2
    name = chance.choice(recipes.names())
    tree = VIEWS if views else yaml.safe_load(to_yaml(recipes.load(name)))
    if not views and chance.random() < 0.5:  # a short one, as people write them
        tree = {key: value for key, value in tree.items() if chance.random() < 0.3} or {"batch_size": 4}
    if chance.random() < 0.6:
        what, damaged, _ = damage_tree(chance, tree, VALUES)
        content = _yaml(damaged).encode("utf-8", "surrogatepass")
    else:
        what, content = damage_text(chance, yaml.safe_dump(tree, sort_keys=False), WORDS)
    return Case(f"{'views' if views else name}: {what}", content, name="file.yaml", plan=views)


def prepare(folder: Path) -> Dataset:
    """A dataset of no images: a detector needs its classes."""
    return Dataset(folder, "coco", "train", ("cell", "other"), (1, 2), ())


def check(case: Case, shared: Dataset, folder: Path) -> None:
    """Read the file as the command line would."""
    path = folder / case.name
    path.write_bytes(case.content)
    if case.plan:
        views = answer(lambda: load_views(str(path)), names=str(path))
        assert views is None or 0 < views.passes < 10_000
        return
    recipe = answer(lambda: from_yaml(path), names=str(path))
    if recipe is None:
        return
    assert from_yaml_again(recipe, folder) == recipe, "what is written is not what was read"
    chosen = answer(lambda: resolve(recipe, data=folder, out=folder / "run"))
    if chosen is None:
        return
    answer(lambda: build(chosen.recipe, shared))
    assert not (folder / "run").exists()


def from_yaml_again(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as it comes back from its file."""
    path = folder / "again.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    return from_yaml(path)


def build(recipe: Recipe, data: Dataset) -> None:
    """Build the detector, without memory for its weights."""
    with without_values():
        detector = build_detector(override(recipe, {"arguments.backbone_weights": "null"}), data).detector
    json.dumps(detector.spec.to_json(), allow_nan=False)


KIND = Kind(
    "recipes and views with one thing changed are read, checked and built, or refused with a message",
    make,
    check,
    cases=2_000,
    fast=16,
    prepare=prepare,
    seconds=20,
    memory=500,
)
