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
from test_gradients import CASES, assert_equal, batch, gradients
from tiny_detector import OWN
from torch import Tensor

from singleshot.errors import UserError
from singleshot.training import override, to_yaml, train
from singleshot.training.recipe import Recipe
from singleshot.training.state import SavedState

HERE = Path(__file__).parent


def entries(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from test_gradients import CASES, backward, batch, parts
from singleshot.training import from_yaml, train
from singleshot.training.parallel import start_ranks

out = Path(sys.argv[1])
with start_ranks("cpu") as ranks:
    result = train(from_yaml(out / "recipe.yaml"), out=out / "two", builder="tiny_detector:tiny")
    assert result.metrics and result.last.exists()
    found = {}
    for name in sys.argv[2:]:
        detector = CASES[name]()
        model = torch.nn.parallel.DistributedDataParallel(detector)
        mine = parts(batch((4, 0, 1, 2)), 2)[ranks.rank]
        losses = backward(model, detector, parts(mine, 1))
        shared = {key: ranks.mean(value) for key, value in losses.items()}
        found |= {f"{name}:loss:{key}": value for key, value in shared.items()}
        learning = {key: p.grad for key, p in detector.named_parameters() if p.grad is not None}
        found |= {f"{name}:grad:{key}": value.contiguous() for key, value in learning.items()}
    if ranks.first:
        save_file(found, out / "found.safetensors")
"""
NAMES = ("ssd", "refinedet", "ohem")


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    """Batches of one image, every third image without objects: often a process has nothing to find."""
    return make_recipe(batch_size=2, arguments={"dropout": 0.0}, log__every=1, schedule__steps=12)


@pytest.fixture(scope="module")
def together(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have made: a run, and the gradients of some detectors."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "recipe.yaml").write_text(to_yaml(override(recipe, {"batch_size": 1})))
    (folder / "program.py").write_text(PROGRAM)
    done = run_ranks(folder / "program.py", folder, *NAMES)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_equal_one_with_the_doubled_batch(together: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, out=tmp_path / "one")
    one, two = entries(tmp_path / "one", "step"), entries(together / "two", "step")
    assert [line["step"] for line in two] == list(range(1, 13))  # written once
    for a, b in zip(one, two, strict=True):
        assert a["rate"] == b["rate"]
        assert b["losses"] == pytest.approx(a["losses"], rel=2e-5, abs=1e-6)
    first, second = load_file(tmp_path / "one/last.safetensors"), load_file(together / "two/last.safetensors")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)
    for a, b in zip(entries(tmp_path / "one", "validation"), entries(together / "two", "validation"), strict=True):
        assert b["metrics"]["coco"] == pytest.approx(a["metrics"]["coco"], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_with_two_batches_each(together: Path, name: str) -> None:
    """Their losses and gradients are those of one batch with all images."""
    found = load_file(together / "found.safetensors")
    losses, expected = gradients(CASES[name](), [batch((4, 0, 1, 2))])
    assert_equal({f"{name}:loss:{key}": value for key, value in losses.items()}, _of(found, f"{name}:loss:"))
    assert_equal({f"{name}:grad:{key}": value for key, value in expected.items()}, _of(found, f"{name}:grad:"))


def _of(found: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name.startswith(prefix)}


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
