"""Flags, recipe, file and resumed run become one recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_detector import tiny

import singleshot as ss
from singleshot.training import from_yaml, override, train
from singleshot.training.recipe import Recipe
from singleshot.training.resolve import Resolved, resolve

MakeRecipe = Callable[..., Recipe]


def test_arguments_count_more_than_the_recipe_and_the_file_fills_what_is_open(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, squares: Path
) -> None:
    torch.manual_seed(0)
    ss.save(tiny(num_classes=2, dropout=0.4, class_names=("red", "green")), tmp_path / "file.safetensors")
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe(
        data__path="elsewhere", start_from="other.safetensors", compute={"device": "cuda:7", "precision": "auto"}
    )
    recipe = override(recipe, {"arguments": {"norm": True}})
    found = resolve(
        recipe, data=squares, from_checkpoint="file.safetensors", skip_bad=True, device="cpu", out=tmp_path / "run"
    )
    assert (found.recipe.data.path, found.recipe.data.skip_bad) == (str(squares), True)
    assert found.recipe.start_from == str(tmp_path / "file.safetensors")
    assert (found.recipe.compute.device, found.recipe.compute.precision in ("fp32", "bf16")) == ("cpu", True)
    assert found.recipe.arguments == {"dropout": 0.2, "norm": True}  # said by the recipe
    assert found.class_names == ("red", "green")
    assert found.source is not None
    assert (found.stopped, found.notes) == (None, [])
    unsaid = resolve(override(recipe, {"start": "file"}), from_checkpoint="file.safetensors", device="cpu")
    assert unsaid.recipe.arguments == {"dropout": 0.4}


def test_what_is_resolved_is_what_the_run_keeps(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__steps=1, optimizer__freeze_norm_steps=-1, arguments__norm=True)
    found = resolve(recipe)
    run = train(recipe, out=tmp_path / "run").run
    assert found.final(fresh=True) == from_yaml(run / "recipe.yaml")
    assert found.final(fresh=True).optimizer.freeze_norm_steps == 0
    assert found.final(fresh=False) == found.recipe

    again = resolve(override(recipe, {"schedule.steps": 2}), resume=run, out=run)
    assert again.stopped is not None
    assert again.stopped.recipe == from_yaml(run / "recipe.yaml")
    assert again.class_names == ("green", "red")
    assert again.final(fresh=True) == again.recipe == override(again.stopped.recipe, {"schedule.steps": 2})
    assert again.notes == [
        "the backbone started from random weights, so there is nothing to protect; "
        "without effect: optimizer.freeze_norm_steps -1 -> 0",
        "changed since the run began: schedule.steps 1 -> 2",
    ]
    assert resolve(None, resume=run).recipe == again.stopped.recipe
    with pytest.raises(ss.UserError, match="continues in that folder: leave out --out"):
        resolve(None, resume=run, out=tmp_path / "other")


def test_nothing_given_is_the_plain_recipe() -> None:
    assert resolve(None, device="cpu").recipe.schedule == Recipe().schedule
    assert Resolved(Recipe()).class_names == ()
