"""A run continues as the run that it was: what changed meanwhile is refused, or said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_detector import OWN

from singleshot.errors import UserError
from singleshot.training import from_yaml, made_by, override, train
from singleshot.training.folder import RunFolder
from singleshot.training.made_by import image_files
from singleshot.training.recipe import Recipe
from singleshot.training.resume import Stopped
from singleshot.training.state import SavedState

MakeRecipe = Callable[..., Recipe]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path, squares: Path) -> Path:
    return Path(shutil.copytree(squares, tmp_path / "data"))


@pytest.fixture
def run(tmp_path: Path, data: Path, make_recipe: MakeRecipe) -> Path:
    """A run of two steps, in batches of four."""
    return train(make_recipe(data__path=str(data), schedule__steps=2, batch_size=4), out=tmp_path / "run").run


def longer(run: Path, **changes: Any) -> Recipe:
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return override(from_yaml(run / "recipe.yaml"), {"builder": OWN, "schedule.steps": 3, **changes})


def rewrite(run: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Change the text of the state."""
    state = run / "state.safetensors"
    with safe_open(state, "pt") as file:
        text = dict(file.metadata())
    text.pop("sha256", None)  # changed on purpose, not damaged
    change(text)
    save_file(load_file(state), state, metadata=text)


def told(capsys: Capture, start: str) -> list[str]:
    """What is said to have changed, of the things whose name starts so."""
    begin = f"changed since the run began: {start}"
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(begin)]


# ------------------------------------------------------------------------------------------------------------- recipe
def test_an_edited_recipe_is_compared_with_that_of_the_state(run: Path, capsys: Capture) -> None:
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("lr: 0.01", "lr: 0.5"))
    with pytest.raises(UserError, match=r"optimizer\.lr 0\.01 -> 0\.5"):
        train(resume=run, builder=OWN)
    (run / "recipe.yaml").write_text(text.replace("steps: 2\n", "steps: 3\n", 1))
    train(resume=run, builder=OWN)
    assert told(capsys, "schedule.steps") == ["changed since the run began: schedule.steps 2 -> 3"]
    assert SavedState.read(run / "state.safetensors").progress.step == 3


def test_a_refused_change_is_not_written(run: Path, data: Path) -> None:
    before = (run / "recipe.yaml").read_bytes()
    annotation = data / "Annotations/train0.xml"
    annotation.write_text(annotation.read_text().replace(">red<", ">green<"))
    with pytest.raises(UserError, match=r"changed since the run began: 11 images, 16 objects, .* -> 11 images, 16 obj"):
        train(longer(run), resume=run)
    assert (run / "recipe.yaml").read_bytes() == before


def test_the_images_of_a_step_stay(run: Path, tmp_path: Path, data: Path, make_recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match=r"takes 4 images, but now it would take 2 .* give --batch-size 4"):
        train(longer(run, batch_size=2), resume=run)
    with pytest.raises(UserError, match="now it would take 9 .* start as many processes as before"):
        train(longer(run, batch_size=3, optimizer__accumulate=3), resume=run)
    plain = {"arguments": {"dropout": 0}, "schedule__kind": "constant", "schedule__warmup_steps": 0, "batch_size": 4}
    whole = train(make_recipe(data__path=str(data), **plain, schedule__steps=3), out=tmp_path / "whole")
    parts = train(make_recipe(data__path=str(data), **plain, schedule__steps=2), out=tmp_path / "parts")
    train(longer(parts.run, batch_size=2, optimizer__accumulate=2), resume=parts.run)
    one, two = load_file(whole.last), load_file(parts.last)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- data
def test_other_pixels_are_said_and_a_copy_is_the_same(run: Path, data: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy, copy_function=shutil.copyfile)  # other times of the files
    capsys.readouterr()
    best = SavedState.read(run / "state.safetensors").progress.best
    train(longer(run), resume=run, data=copy)
    said = told(capsys, "")
    assert [line.split(": ")[1].split()[0] for line in said] == ["data.path", "schedule.steps"]
    assert best is not None

    image = copy / "JPEGImages/train3.png"
    Image.open(image).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(image)
    train(longer(run, schedule__steps=4), resume=run)
    assert "the run goes on with the new ones" in told(capsys, "the image files to train on ")[0]


def test_files_are_told_apart_by_size_and_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{k}" for k in range(4)]
    for path in paths:
        path.write_bytes(bytes(200_000))

    def changed(place: int, path: Path = paths[0]) -> bool:
        before, content = image_files(paths), bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        return image_files(paths) != before

    assert changed(0)
    assert changed(100_000)
    assert changed(199_999)
    monkeypatch.setattr(made_by, "SAMPLED", 2)
    assert not changed(0, paths[1])
    paths[1].write_bytes(bytes(200_001))
    assert image_files(paths).startswith("800,001 bytes, ")
    paths[2].unlink()
    assert image_files(paths).startswith("600,001 bytes, ")


def test_another_validation_set_is_said_and_the_best_is_decided_anew(run: Path, data: Path, capsys: Capture) -> None:
    rewrite(run, lambda text: text.update(progress=json.dumps({**json.loads(text["progress"]), "best": 2.0})))
    val = data / "ImageSets/Main/val.txt"
    val.write_text("".join(val.read_text().splitlines(keepends=True)[:3]))
    train(longer(run), resume=run)
    (said,) = told(capsys, "the images to validate on ")
    assert "on 4 images, " in said
    assert "-> 3 images, " in said
    progress = SavedState.read(run / "state.safetensors").progress
    assert progress.best != 2.0
    assert progress.best_step == 3


# ------------------------------------------------------------------------------------------------------------ machine
def test_threads_and_versions_are_said(run: Path, capsys: Capture) -> None:
    def change(text: dict[str, str]) -> None:
        text["made_by"] = json.dumps(
            {**json.loads(text["made_by"]), "threads": 77, "torch": "1.0", "machine": "abacus"}
        )

    rewrite(run, change)
    train(longer(run), resume=run)
    said = " ".join(told(capsys, ""))
    for name, before in {"threads": "77", "torch": "1.0", "processor": "abacus"}.items():
        assert f"{name} {before} -> " in said
    capsys.readouterr()
    train(longer(run, schedule__steps=4), resume=run)
    assert [line.split(": ")[1].split()[0] for line in told(capsys, "")] == ["schedule.steps"]


# ------------------------------------------------------------------------------------------------------------- states
def test_a_state_that_does_not_say_what_it_was_made_by(run: Path, data: Path, capsys: Capture) -> None:
    rewrite(run, lambda text: text.pop("made_by"))
    with pytest.raises(UserError, match="takes 4 images, but now it would take 2"):
        train(longer(run, batch_size=2), resume=run)
    train(longer(run), resume=run)
    assert [line.split(": ")[1].split()[0] for line in told(capsys, "")] == ["schedule.steps"]
    rewrite(run, lambda text: text.pop("made_by"))
    (data / "ImageSets/Main/train.txt").write_text("train0\ntrain1\ntrain3\ntrain4\n")
    with pytest.raises(UserError, match="the training images or their boxes have changed"):
        train(longer(run, schedule__steps=4), resume=run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": "two"}, r"progress\.step: expected a whole number"),
        ({"step": -1}, r"progress\.step is -1; expected 0 to 2"),
        ({"step": 3}, r"progress\.step is 3; expected 0 to 2, the steps of the whole run"),
        ({"total": 0}, r"progress\.total is 0"),
        ({"validated": 9}, r"progress\.validated is 9"),
        ({"best": float("nan")}, r"progress\.best"),
        ({"best_step": 7}, r"progress\.best_step is 7"),
        ({"sums": {"box": "much"}}, r"progress\.sums"),
        ({"sums": [1]}, r"progress\.sums: expected a mapping"),
        ({"metrics": 3}, r"progress\.metrics: expected a mapping"),
        ({"classes": ["red", "red"]}, r"progress\.classes"),
        ({"classes": 7}, r"progress\.classes"),
        ({"finished": "maybe"}, r"progress\.finished: expected true or false"),
        ({"colour": 1}, r"unknown key 'progress\.colour'"),
        ({"stale": None}, r"progress\.stale: expected a whole number"),
    ],
)  # fmt: skip
def test_damaged_progress(run: Path, changes: dict[str, Any], said: str) -> None:
    rewrite(run, lambda text: text.update(progress=json.dumps({**json.loads(text["progress"]), **changes})))
    with pytest.raises(UserError, match=said) as error:
        SavedState.read(run / "state.safetensors")
    assert str(run / "state.safetensors") in str(error.value)


def test_damaged_text(run: Path) -> None:
    for text in ("{", "[1]", "9" * 5000, "[" * 100_000, '{"step": 1}', "null"):
        for name in ("progress", "made_by"):
            rewrite(run, lambda known, name=name, text=text: known.update({name: text}))  # type: ignore[misc]
            with pytest.raises(UserError, match=r"state\.safetensors: (this file is not|unknown key)"):
                SavedState.read(run / "state.safetensors")
            rewrite(run, lambda known, name=name: known.update({"made_by": "{}"}))  # type: ignore[misc]


def test_changed_bytes(run: Path) -> None:
    """One plain sentence, and no advice about copies or checksums."""
    state = run / "state.safetensors"
    whole = state.read_bytes()
    advice = "Start a new run; --from starts it from the weights in this folder"
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError) as error:
        SavedState.read(state)
    assert str(error.value) == (
        f"{state}: the saved state is damaged: the file has changed since the run wrote it. {advice}"
    )
    state.write_bytes(whole[:-1])
    with pytest.raises(UserError) as error:
        SavedState.read(state)
    assert str(error.value).count("damaged") == 1
    assert str(error.value).endswith(advice)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("optimizer.momentum_buffer.backbone.second.0.bias", torch.zeros(3), r"has the shape \(3,\)"),
        ("model.backbone.second.0.bias", torch.full((12,), torch.nan), "NaN or infinite"),
        ("model.backbone.second.0.bias", torch.zeros(5), r"has the shape \(5,\)"),
        ("model.more", torch.zeros(5), "1 name that only one of them has: more"),
        ("random.cpu.0", torch.zeros(5), "random numbers is damaged"),
    ],
)  # fmt: skip
def test_damaged_tensors(run: Path, name: str, value: torch.Tensor, said: str) -> None:
    state = run / "state.safetensors"
    with safe_open(state, "pt") as file:
        text = dict(file.metadata())
    del text["sha256"]
    save_file({**load_file(state), name: value}, state, metadata=text)
    with pytest.raises(UserError, match=said):
        train(longer(run), resume=run)


def test_a_run_that_another_process_continued_meanwhile(run: Path) -> None:
    stopped = Stopped.read(run)
    stopped.must_be_last()
    RunFolder(run).write(stopped.state.path, stopped.state.path.read_bytes())
    with pytest.raises(UserError, match="another process has continued this run meanwhile"):
        stopped.must_be_last()
