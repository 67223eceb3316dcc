"""Every recipe stands, says where its figure is from, and builds a detector."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from singleshot import recipes
from singleshot.detectors import find_builder
from singleshot.errors import UserError
from singleshot.training import from_yaml, to_yaml
from singleshot.training.schedule import rate_factor

PAPER = [name for name in recipes.names() if name != "finetune"]


def test_the_published_settings_are_there() -> None:
    families = ("voc07", "voc", "voc12", "coco", "voc_from_coco", "voc12_from_coco")
    wanted = {f"ssd{size}_{family}{form}" for size in (300, 512) for family in families for form in ("", "_noexpand")}
    assert set(recipes.names()) == wanted | {"ssd300_ilsvrc", "finetune"}


@pytest.mark.parametrize("name", PAPER)
def test_published(name: str) -> None:
    recipe = recipes.get(name)
    assert recipe.name == name
    (figure,) = recipe.expected
    assert 20 < figure.value < 90
    assert "1512.02325" in figure.source
    assert recipe.augmentation.expand is not (name.endswith("_noexpand") or name == "ssd300_ilsvrc")
    assert recipe.arguments["box_sizes"] == ("coco" if "coco" in name or "ilsvrc" in name else "voc")
    assert recipe.arguments["image_size"] == int(name[3:6])
    assert (recipe.optimizer.lr, recipe.batch_size, recipe.schedule.warmup_steps) == (1e-3, 32, 0)
    assert not recipe.data.drop_difficult


@pytest.mark.parametrize(
    ("name", "value", "steps", "milestones"),
    [
        ("ssd300_voc", 77.2, 120_000, (80_000, 100_000)),
        ("ssd512_voc_noexpand", 76.8, 60_000, (40_000, 50_000)),
        ("ssd512_voc12", 78.5, 160_000, (120_000,)),
        ("ssd300_voc12_noexpand", 72.4, 80_000, (60_000,)),
        ("ssd512_coco", 28.8, 400_000, (280_000, 360_000)),
        ("ssd300_coco_noexpand", 23.2, 240_000, (160_000, 200_000)),
        ("ssd512_voc_from_coco", 83.2, 120_000, (80_000, 100_000)),
        ("ssd300_ilsvrc", 43.4, 440_000, (320_000, 400_000)),
    ],
)
def test_schedules_of_the_paper(name: str, value: float, steps: int, milestones: tuple[int, ...]) -> None:
    recipe = recipes.get(name)
    assert recipe.expected[0].value == value
    assert (recipe.schedule.steps, recipe.schedule.milestones) == (steps, milestones)
    assert rate_factor(recipe.schedule, steps - 1, steps) == pytest.approx(0.1 ** len(milestones))


@pytest.mark.parametrize("name", recipes.names())
def test_builds_and_round_trips(name: str, tmp_path: Path) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        detector = find_builder(recipe.builder)(num_classes=3, **recipe.arguments)
    side = recipe.arguments["image_size"]
    assert detector.image_size == (side, side)
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    assert from_yaml(path) == recipe


def test_names_are_looked_up() -> None:
    with pytest.raises(UserError, match="did you mean ssd300_voc"):
        recipes.get("ssd300_vok")
    with pytest.raises(UserError, match="unknown recipe"):
        recipes.load("nothing")


def test_a_file_builds_on_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "cells.yaml").write_text("recipe: finetune\nschedule: {epochs: 3}\n")
    recipe = recipes.load(tmp_path / "cells.yaml")
    assert recipe.name == "cells"
    assert recipe.schedule.epochs == 3
    assert recipe.optimizer == recipes.get("finetune").optimizer
    (tmp_path / "more.yaml").write_text("recipe: cells.yaml\nname: more\nseed: 5\n")
    more = recipes.load(str(tmp_path / "more.yaml"))
    assert (more.name, more.seed, more.schedule.epochs) == ("more", 5, 3)
    (tmp_path / "loop.yaml").write_text("recipe: loop.yaml\n")
    with pytest.raises(UserError, match="builds on itself"):
        recipes.load(tmp_path / "loop.yaml")


def test_recipes_need_no_torch() -> None:
    program = "import sys, singleshot.recipes as r; r.names(); print([m for m in ('torch', 'cv2') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
