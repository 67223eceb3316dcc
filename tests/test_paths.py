"""Paths at every door: text that is no path, and links that lead back to themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import singleshot as ss
from singleshot import recipes
from singleshot.cli import main
from singleshot.data.open import find_splits, open_dataset
from singleshot.engines import load as load_any
from singleshot.errors import UserError
from singleshot.inference.sources import expand
from singleshot.multiscale import published
from singleshot.paths import no_name, to_path
from singleshot.training import from_yaml, override, train
from singleshot.training.recipe import Recipe

DOORS: dict[str, Callable[[str], Any]] = {
    "load": ss.load,
    "engine": load_any,
    "dataset": open_dataset,
    "splits": find_splits,
    "sources": lambda path: expand([path]),
    "recipe": from_yaml,
    "recipes": lambda path: recipes.load(f"{path}.yaml"),
    "views": lambda path: published.load(f"{path}.yaml"),
    "train data": lambda path: train(Recipe(), data=path),
    "train out": lambda path: train(Recipe(), data="x", out=path),
    "train resume": lambda path: train(resume=path),
    "train from": lambda path: train(Recipe(), data="x", from_checkpoint=path),
    "backbone": lambda path: ss.ssd(num_classes=2, backbone="mobilenetv2", image_size=64, backbone_weights=path),
    "val_path": lambda path: train(override(Recipe(), {"data.path": "x", "data.val_path": path})),
}


@pytest.mark.parametrize("name", DOORS)
def test_text_that_is_no_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, what in (("a\0b", "a NUL character"), ("a\ud800", "half of a character")):
        with pytest.raises(UserError, match=f"holds {what}"):
            DOORS[name](text)
    if not name.startswith(("recipes", "views", "val_path")):
        with pytest.raises(UserError, match="empty|'' is not a path"):
            DOORS[name]("")
    for text in ("x" * 300, "y/" * 3_000):
        with pytest.raises(UserError, match="too long for the name"):
            DOORS[name](text)
    assert not list(tmp_path.iterdir())


def test_a_name_of_bytes_that_are_no_text_is_a_path() -> None:
    assert to_path("caf\udce9") == Path("caf\udce9")
    assert no_name("caf\udce9 猫") is None


LOOP = "loop/x"  # within a link to itself


@pytest.mark.parametrize(
    "words",
    [
        "data check LOOP",
        "data check DATA/loop",
        "data show LOOP --out x.png",
        "data show DATA --out LOOP.png",
        "data split LOOP",
        "detect MODEL LOOP",
        "detect MODEL DATA/JPEGImages --out LOOP",
        "detect LOOP DATA",
        "evaluate LOOP DATA",
        "evaluate MODEL LOOP",
        "evaluate MODEL DATA --save-detections LOOP",
        "evaluate MODEL DATA --tta LOOP.yaml",
        "evaluate --detections LOOP DATA",
        "analyse errors --detections LOOP DATA",
        "analyse run LOOP",
        "recipes LOOP.yaml",
        "train LOOP",
        "train DATA --recipe LOOP.yaml",
        "train DATA --out LOOP",
        "train DATA --from LOOP",
        "train DATA --backbone-weights LOOP",
        "train --resume LOOP",
    ],
)
def test_links_that_lead_back_to_themselves(
    words: str,
    tiny_voc: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    given = words.replace("LOOP", LOOP).replace("DATA", str(tiny_voc)).replace("MODEL", str(tiny_model))
    assert main(given.split()) == 2, capsys.readouterr().err
    assert "loop" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize("place", ["JPEGImages/a.jpg", "Annotations/a.xml", "ImageSets/Main/train.txt", "JPEGImages"])
def test_a_loop_in_the_place_of_a_file(
    place: str, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(tiny_voc, tmp_path / "voc")
    target = data / place
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    target.symlink_to(target.name)
    (data / "beside").symlink_to("beside")
    assert main(["data", "check", str(data)]) == 2, capsys.readouterr().err
    said = capsys.readouterr()
    assert str(target) in said.out + said.err


def test_a_loop_beside_the_files_does_no_harm(tiny_voc: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_voc, tmp_path / "voc")
    for folder in (data, data / "JPEGImages", data / "Annotations", data / "ImageSets" / "Main"):
        for name in ("loop", "loop.png", "loop.xml", "train_loop.txt"):
            (folder / name).symlink_to(name)
    assert len(open_dataset(data, split="train").records) == 4
