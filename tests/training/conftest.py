"""Small data and recipes for training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from singleshot.training.recipe import Recipe, from_tree, override

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # recipes name the builder `tiny_detector:tiny`


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder to read, not to change: 11 training images, every third without objects, and 4 to validate on."""
    root = tmp_path_factory.mktemp("squares")
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, count in {"train": 11, "val": 4}.items():
        names = [f"{split}{i}" for i in range(count)]
        for i, name in enumerate(names):
            write_image(root, name, random, empty=split == "train" and i % 3 == 2)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_image(root: Path, name: str, random: np.random.Generator, *, empty: bool) -> None:
    pixels = random.integers(0, 60, (64, 80, 3), np.uint8)
    objects = ""
    for kind, colour in () if empty else (("red", (220, 30, 30)), ("green", (30, 220, 30))):
        x, y = (int(value) for value in random.integers(2, 30, 2))
        side = int(random.integers(18, 32))
        pixels[y : y + side, x : x + side] = colour
        corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + side}</xmax><ymax>{y + side}</ymax>"
        objects += f"<object><name>{kind}</name><bndbox>{corners}</bndbox></object>"
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
    size = "<size><width>80</width><height>64</height><depth>3</depth></size>"
    annotation = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(annotation)


@pytest.fixture(scope="session")
def make_recipe(squares: Path) -> Callable[..., Recipe]:
    """The recipe of a short run; dotted changes as keywords with __ for the dot."""

    def make(**changes: Any) -> Recipe:
        recipe = from_tree(
            {
                "name": "tiny",
                "builder": "tiny_detector:tiny",
                "arguments": {"dropout": 0.2},
                "batch_size": 2,
                "seed": 3,
                "data": {"path": str(squares), "workers": 0},
                "optimizer": {"name": "sgd", "lr": 0.01, "base_batch_size": 0},
                "schedule": {"steps": 14, "kind": "cosine", "warmup_steps": 2},
                "ema": {"decay": 0.9},
                "compute": {"device": "cpu", "precision": "fp32"},
                "log": {"every": 2},
            }
        )
        return override(recipe, {key.replace("__", "."): value for key, value in changes.items()})

    return make
