"""Two processes compute what one does with the doubled batch."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from tiny_detector import OWN

from singleshot.errors import UserError
from singleshot.training import override, to_yaml, train
from singleshot.training.recipe import Recipe
from singleshot.training.state import SavedState

HERE = Path(__file__).parent


def entries(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    """Batches of one image, every third image without objects: often a process has nothing to find."""
    recipe = make_recipe(batch_size=2, arguments={"dropout": 0.0}, log__every=1, schedule__steps=12)
    train(recipe, out=tmp_path / "one")
    (tmp_path / "recipe.yaml").write_text(to_yaml(override(recipe, {"batch_size": 1})))
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nimport torch\ntorch.set_num_threads(1)\n"
        "from singleshot.training import from_yaml, train\n"
        "result = train(from_yaml(sys.argv[1]), out=sys.argv[2], builder='tiny_detector:tiny')\n"
        "assert result.metrics and result.last.exists()\n"
    )
    done = run_ranks(program, tmp_path / "recipe.yaml", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    one, two = entries(tmp_path / "one", "step"), entries(tmp_path / "two", "step")
    assert [line["step"] for line in two] == list(range(1, 13))  # written once
    for a, b in zip(one, two, strict=True):
        assert a["rate"] == b["rate"]
        assert b["losses"] == pytest.approx(a["losses"], rel=2e-5, abs=1e-6)
    first, second = load_file(tmp_path / "one/last.safetensors"), load_file(tmp_path / "two/last.safetensors")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)
    for a, b in zip(entries(tmp_path / "one", "validation"), entries(tmp_path / "two", "validation"), strict=True):
        assert b["metrics"]["coco"] == pytest.approx(a["metrics"]["coco"], abs=1e-3)


# -------------------------------------------------------------------------------------------- as torchrun starts them
def start(out: Path, settings: dict[str, Any], ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run `rank_program.py` in one process or several."""
    return run_ranks(HERE / "rank_program.py", out, json.dumps(settings), ranks=ranks, seconds=900)


FAMILIES: dict[str, dict[str, Any]] = {
    name: {"builder": name, "arguments": {"backbone": "mobilenetv2", "image_size": 64, **more}}
    for name, more in {
        "ssd": {},
        "retinanet": {"channels": 16},
        "iou_retinanet": {"channels": 16},
        "refinedet": {"channels": 16},
    }.items()
}


@pytest.mark.slow
def test_two_processes_equal_one_in_every_family(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(
        schedule__steps=3,
        log__every=1,
        data__val_split="none",
        ema__decay="null",
        optimizer__lr=1e-5,
        augmentation={"expand": False, "crop": False},  # images of one shape: others are padded by their batch
    )
    recipe = replace(recipe, arguments={})
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    for ranks, images in ((1, 2), (2, 1)):
        changes = {"batch_size": images}
        settings = {"recipe": str(tmp_path / "recipe.yaml"), "builders": FAMILIES, "changes": changes}
        done = start(tmp_path / str(ranks), settings, ranks)
        assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        one, two = (entries(tmp_path / ranks / family, "step") for ranks in "12")
        assert [line["step"] for line in two] == [1, 2, 3]
        for a, b in zip(one, two, strict=True):
            assert b["losses"] == pytest.approx(a["losses"], rel=1e-4), family
        first, second = (load_file(tmp_path / ranks / family / "last.safetensors") for ranks in "12")
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5, msg=f"{family}: {name}")


def images(out: Path, first: int = 0) -> dict[int, list[str]]:
    """The images of each step, in the order of the ranks."""
    found: dict[int, list[str]] = {}
    for rank in sorted(out.parent.glob(f"{out.name}-images-*.jsonl")):
        for step, names in map(json.loads, rank.read_text().splitlines()):
            if step >= first:
                found.setdefault(step, []).extend(names)
    return found


@pytest.mark.slow
def test_a_run_of_two_processes_continues_with_one_or_four(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(arguments={"dropout": 0.0}, batch_size=4, schedule__steps=9, log__save_every=2)
    (tmp_path / "recipe.yaml").write_text(to_yaml(override(recipe, {"data.val_split": "none"})))
    settings = {"recipe": str(tmp_path / "recipe.yaml"), "builders": {"run": {}}}
    assert start(tmp_path / "whole", settings).returncode == 0
    stopped = start(tmp_path / "two", {**settings, "changes": {"batch_size": 2}, "kill": 5}, 2)
    assert stopped.returncode != 0
    assert SavedState.read(tmp_path / "two/run/state.safetensors").progress.step == 4
    with pytest.raises(UserError, match="takes 4 images, but now it would take 2 .* give --batch-size 4"):
        train(resume=tmp_path / "two/run", builder=OWN)
    for ranks in (1, 4):
        out = Path(shutil.copytree(tmp_path / "two", tmp_path / f"then {ranks}"))
        for file in out.glob("*-images-*"):
            file.unlink()
        changes = {"batch_size": 4 // ranks}
        done = start(out, {**settings, "changes": changes, "resume": True}, ranks)
        assert done.returncode == 0, done.stderr
        assert "processes 2 -> " in done.stderr
        assert images(out / "run") == images(tmp_path / "whole/run", first=4)
        one, other = (load_file(place / "run/last.safetensors") for place in (tmp_path / "whole", out))
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)
