"""The run folder, where training starts from, and what it refuses."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_detector import OWN, tiny

import singleshot
import singleshot.training
from singleshot.data import limits
from singleshot.errors import UserError
from singleshot.training import from_yaml, override, saving, train, validation
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import Recipe
from singleshot.training.setup import choose_precision, worker_count
from singleshot.training.validation import metric_value

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("name", singleshot.training.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(singleshot.training, name).__module__.startswith("singleshot.training.")


def test_what_metric_and_detector_cannot_count_is_said_at_the_start(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COCO_DETECTIONS", 0)
    train(make_recipe(schedule__steps=1), out=tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("4 images have more than 0 objects of one class (most: val0, 1)") == 1


def test_the_run_folder(tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(make_recipe(), out=tmp_path / "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "learning rate 0.01 (not scaled)" in captured.err
    assert "2 classes (green, red); 11 images to train on, 4 to validate on" in captured.err
    assert "note:" not in captured.err
    names = {path.name for path in result.run.iterdir()}
    assert names == {"recipe.yaml", "log.jsonl", "last.safetensors", "best.safetensors", "state.safetensors"}
    entries = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["kind"] == "step"] == [2, 4, 6, 8, 10, 12, 14]
    assert [entry["step"] for entry in entries if entry["kind"] == "validation"] == [6, 12, 14]
    for path in (result.best, result.last):
        detector = singleshot.load(path, builder=tiny)
        assert detector.class_names == ("green", "red")
    assert result.metrics["voc10"].keys() == {"mAP"}


def test_settings_that_cannot_be_meant_get_a_note(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_recipe(schedule__steps=2, schedule__warmup_steps=2, batch_size=12), out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "note: a step takes 12 images, more than the data has (11): a smaller --batch-size" in said
    assert "note: the run ends before the warm-up of the learning rate does (2 steps): give it more --epochs" in said
    assert "note: the run shows each image" not in said  # steps are what somebody asked for
    train(make_recipe(schedule__images=24, schedule__warmup_steps=1), out=tmp_path / "images")
    assert (
        "note: the run shows each image 2.2 times only: its length is meant for smaller sets" in capsys.readouterr().err
    )


def test_validations_and_states_keep_a_distance_whatever_an_epoch_is(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few images have short epochs: to measure and to save after each would take longer than to learn."""
    saved = []
    monkeypatch.setattr(saving, "save", lambda run: saved.append(run.progress.step))
    recipe = make_recipe(schedule__steps=24, validation__times=3)  # an epoch has 6 steps
    result = train(recipe, out=tmp_path / "run")
    log = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if entry["kind"] == "validation"] == [8, 16, 24]
    assert saved == [8, 16, 24]


def test_recipe_yaml_repeats_the_run(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    first = train(make_recipe(schedule__steps=5), out=tmp_path / "first")
    second = train(from_yaml(first.run / "recipe.yaml"), out=tmp_path / "second", builder=OWN)
    one, two = load_file(first.last), load_file(second.last)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert (first.run / "recipe.yaml").read_bytes() == (second.run / "recipe.yaml").read_bytes()


def test_weights_carry_no_paths(tmp_path: Path, make_recipe: MakeRecipe, squares: Path) -> None:
    result = train(make_recipe(schedule__steps=1), out=tmp_path / "run")
    assert str(squares).encode() not in result.last.read_bytes()


def test_a_run_is_never_overwritten(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"this folder has other files in it; choose a new run folder with --out"):
        train(make_recipe(), out=tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 7")
    with pytest.raises(UserError, match=r"never overwritten; choose another --out$"):
        train(make_recipe(), out=tmp_path / "run")
    (tmp_path / "run" / "state.safetensors").touch()
    with pytest.raises(UserError, match=r"never overwritten.*--resume"):
        train(make_recipe(), out=tmp_path / "run")
    with pytest.raises(UserError, match="this is a file, but a new run folder is needed; choose another --out"):
        train(make_recipe(), out=tmp_path / "run" / "notes.txt")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_the_next_free_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.create(None, "cells").path.name for _ in range(3)]
    assert made == ["cells-1", "cells-2", "cells-3"]


def test_learns(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.0},
        arguments={"dropout": 0.0},
        schedule__steps=150,
        validation__every=100,
        ema__decay="null",
        batch_size=8,
        augmentation={"photometric": False, "expand": False, "crop": False},
    )
    result = train(recipe, out=tmp_path / "run")
    entries = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if entry["kind"] == "step"]
    assert losses[-1] < 0.5 * losses[0]
    assert result.metrics["voc10"]["mAP"] > 0.3


def test_early_stopping(tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    metrics: dict[str, Any] = {"coco": {"AP": 0, "AP50": 0}, "voc07": {"mAP": None}, "voc10": {"mAP": None}}
    monkeypatch.setattr(validation, "measure", lambda run: {**metrics, "coco": {"AP": next(values), "AP50": 0}})
    result = train(make_recipe(schedule__steps=60, validation__patience=2), out=tmp_path / "run")
    entries = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["best"]) for entry in entries if entry["kind"] == "validation"] == [
        (6, True),
        (12, True),
        (18, False),
        (24, False),
    ]
    assert singleshot.load(result.best, builder=tiny)
    best = json.loads(_metadata(result.best)["metrics"])
    assert (best["step"], best["coco"]["AP"]) == (12, 0.3)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_without_validation(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__steps=3)
    result = train(override(recipe, {"data": {"val_split": "none"}}), out=tmp_path / "run")
    assert result.metrics == {}
    last, best = load_file(result.last), load_file(result.best)
    assert all(torch.equal(value, best[name]) for name, value in last.items())


@pytest.mark.parametrize("name", ["tensorboard"])
def test_trackers(tmp_path: Path, make_recipe: MakeRecipe, name: str) -> None:
    pytest.importorskip(name)
    result = train(make_recipe(schedule__steps=4, log__trackers=name), out=tmp_path / "run")
    assert list(result.run.rglob("events.out.tfevents*"))


# ---------------------------------------------------------------------------------------------- where it starts from
def test_from_a_checkpoint_of_the_same_classes(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    """Nothing is learned at rate 0, so what comes out is what came in; the file's order of classes counts."""
    torch.manual_seed(5)
    source = tiny(num_classes=2, class_names=("red", "green"))
    singleshot.save(source, tmp_path / "source.safetensors")
    recipe = make_recipe(schedule__steps=2, optimizer__lr=0.0, ema__decay="null")
    result = train(recipe, out=tmp_path / "run", from_checkpoint=tmp_path / "source.safetensors")
    found = singleshot.load(result.last, builder=tiny)
    assert found.class_names == ("red", "green")
    for name, value in source.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    train(resume=result.run, builder=OWN)


def test_from_a_checkpoint_of_other_classes(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    source = tiny(num_classes=2, class_names=("cat", "dog"))
    singleshot.save(source, tmp_path / "source.safetensors")
    recipe = make_recipe(
        schedule__steps=2, optimizer__lr=0.0, ema__decay="null", start_from=str(tmp_path / "source.safetensors")
    )
    result = train(recipe, out=tmp_path / "run")
    line = (
        f"from {tmp_path / 'source.safetensors'}: none of the 2 classes (green, red) is among its 2 (cat, dog); all "
        "start at random; "
    )
    assert line in capsys.readouterr().err
    start = json.loads((result.run / "log.jsonl").read_text().splitlines()[0])
    assert any(line in note for note in start["notes"])
    found, before = singleshot.load(result.last, builder=tiny).state_dict(), source.state_dict()
    differ = {name for name, value in before.items() if not torch.equal(found[name], value)}
    assert differ == {name for name in before if name.endswith("class_logits.weight")}  # a bias is 0 before and after


def test_from_a_checkpoint_with_some_of_the_classes(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each class goes on from the one of its name; what is new is drawn as if the run had begun without the file."""
    torch.manual_seed(5)
    source = tiny(num_classes=3, class_names=("cat", "Red", "dog"))
    singleshot.save(source, tmp_path / "source.safetensors")
    recipe = make_recipe(schedule__steps=2, optimizer__lr=0.0, ema__decay="null", arguments={"dropout": 0.0})
    result = train(recipe, out=tmp_path / "run", from_checkpoint=tmp_path / "source.safetensors")
    said = capsys.readouterr().err
    assert "1 of 2 classes found by name (red <- Red), 1 start at random (green); " in said
    assert "4 in part, 0 new" in said
    fresh = singleshot.load(train(recipe, out=tmp_path / "fresh").last, builder=tiny).state_dict()
    found = singleshot.load(result.last, builder=tiny).state_dict()
    for name, given in source.state_dict().items():
        if "class_logits" not in name:
            assert torch.equal(found[name], given), name
            continue
        rows, theirs = found[name].unflatten(0, (-1, 3)), given.unflatten(0, (-1, 4))
        assert torch.equal(rows[:, 0], fresh[name].unflatten(0, (-1, 3))[:, 0])
        assert torch.equal(rows[:, 1:], theirs[:, [1, 3]])


# -------------------------------------------------------------------------------------------------- what goes wrong
def test_full_disk(tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that was there stays, the message says so, and the run goes on from it."""
    import singleshot.training.folder as folder

    original, calls = folder.write_atomically, [0]

    def write(path: Path, content: bytes) -> None:
        if path.name == "state.safetensors":
            calls[0] += 1
            if calls[0] == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        original(path, content)

    monkeypatch.setattr(folder, "write_atomically", write)
    with pytest.raises(
        UserError, match=r"No space left.*saved before is intact.*--resume .* --builder tiny_detector:tiny`"
    ):
        train(make_recipe(log__save_every=3), out=tmp_path / "run")
    monkeypatch.undo()
    train(resume=tmp_path / "run", builder=OWN)


def test_images_without_any_object(tmp_path: Path, make_recipe: MakeRecipe, squares: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(squares, root)
    (root / "ImageSets/Main/train.txt").write_text("train2\ntrain5\n")
    with pytest.raises(UserError, match="no image of the split 'train' has an object"):
        train(make_recipe(data__path=str(root)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_images_are_left_out_when_asked(tmp_path: Path, make_recipe: MakeRecipe, squares: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(squares, root)
    (root / "JPEGImages/train1.png").write_bytes(b"no image")
    (root / "JPEGImages/val1.png").write_bytes(b"")
    recipe = make_recipe(data__path=str(root), schedule__steps=2)
    with pytest.raises(UserError, match=r"train1\.png"):
        train(recipe, out=tmp_path / "run")
    assert train(recipe, out=tmp_path / "run", skip_bad=True).metrics


def test_recipes_that_cannot_be(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data__path": None}, "no data"),
        ({"data__path": str(tmp_path / "none")}, "none"),
        ({"data__split": "tset"}, "no split 'tset'"),
        ({"builder": "sdd"}, "unknown builder 'sdd'"),
        ({"arguments__depth": 3}, "depth"),
        ({"validation__metric": "coco.mAP"}, r"validation\.metric"),
        ({"batch_size": 0}, "batch"),
        ({"optimizer__accumulate": 0}, "accumulate"),
        ({"schedule__steps": "null"}, "how long"),
        ({"log__save_every": 0}, r"log\.save_every is 0; expected 1 to 1,000,000,000, or null"),
        ({"ema__ramp": 0}, r"ema\.ramp is 0"),
        ({"optimizer__name": "adam", "optimizer__momentum": 1.5}, r"optimizer\.momentum is 1\.5"),
        ({"optimizer__momentum": 0, "optimizer__nesterov": True}, "false where momentum is 0"),
        ({"optimizer__clip_norm": 0}, r"optimizer\.clip_norm is 0"),
        ({"optimizer__weight_decay": -1}, r"optimizer\.weight_decay is -1"),
        ({"validation__batch_size": 0}, r"validation\.batch_size is 0"),
        ({"data__workers": -3}, r"data\.workers is -3"),
        ({"compute__device": "gpu"}, "'gpu'"),
        (
            {"augmentation__jitter": [0.7, 1.5]},
            "expand and crop, .* switch jitter off with augmentation.jitter",
        ),
    ]
    for changes, message in wrong:
        with pytest.raises(UserError, match=message):
            train(make_recipe(**changes), out=tmp_path / "run")
        assert not (tmp_path / "run").exists(), changes


def test_metric_names() -> None:
    metrics = {"coco": {"AP": 0.5, "APs": -1.0}, "voc10": {"mAP": None}}
    assert [metric_value(metrics, name) for name in ("coco.AP", "coco.APs", "voc10.mAP")] == [0.5, 0.0, 0.0]


def test_choices() -> None:
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("auto", torch.device("cpu")) in ("bf16", "fp32")
    assert worker_count(0) == 0
    assert worker_count(None, 1000) == 1
