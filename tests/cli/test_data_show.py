"""`singleshot data show`, and the pictures that it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singleshot import recipes
from singleshot.cli import main
from singleshot.data.images import read_image
from singleshot.data.open import open_dataset
from singleshot.inference import samples
from singleshot.training.recipe import override

Capture = pytest.CaptureFixture[str]
SMALL = {"arguments.image_size": 64, "batch_size": 2}
PLAIN = dict.fromkeys(
    ("augmentation.photometric", "augmentation.expand", "augmentation.crop", "augmentation.flip"), False
)


def test_the_boxes_of_the_files(tiny_voc: Path) -> None:
    dataset = open_dataset(tiny_voc, split="train")
    pictures = samples.labelled(dataset, 3)
    assert len(pictures) == 3
    assert len({tuple(caption for _, caption in samples.labelled(dataset, 3, seed)) for seed in range(10)}) > 1
    assert len(samples.labelled(dataset, 100)) == 4
    by_name = {record.name: record for record in dataset.records}
    for picture, caption in pictures:
        name, number = caption.split(": ")
        assert number == "2"
        before = read_image(by_name[name].path)
        rows, columns = np.nonzero((before != picture).any(2))
        frame = (columns.min(), rows.min())
        assert max(frame) <= 8  # the corner of the first box, its outline and its label
        assert min(frame) >= 0
        assert columns.max() >= 83  # the right side of the second
        assert rows.max() >= 61
        inside = (slice(14, 34), slice(14, 34))  # of the first, away from its sides
        assert np.array_equal(before[inside], picture[inside])


def test_what_training_sees(tiny_voc: Path) -> None:
    recipe = override(recipes.get("finetune"), {"data.path": str(tiny_voc), **SMALL})
    pictures = samples.as_trained(recipe, 3)
    assert [picture.shape for picture, _ in pictures] == [(64, 64, 3)] * 3
    again = samples.as_trained(recipe, 3)
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(pictures, again, strict=True))
    other = samples.as_trained(override(recipe, {"seed": 1}), 3)
    assert not all(np.array_equal(one, another) for (one, _), (another, _) in zip(pictures, other, strict=True))
    plain = samples.as_trained(override(recipe, PLAIN), 4)
    assert sorted(caption for _, caption in plain) == ["a: 2", "b: 2", "c: 2", "d: 2"]


def test_on_the_command_line(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    words = ["data", "show", str(tiny_voc), "--number", "2", "--out"]
    assert main([*words, str(sheet), "--split", "val"]) == 0
    assert "2 images:" in capsys.readouterr().out
    width = Image.open(sheet).width
    assert width > 2 * samples.CELL
    before = sheet.read_bytes()
    assert main([*words, str(sheet)]) == 2
    assert "this file exists already" in capsys.readouterr().err
    assert sheet.read_bytes() == before
    small = ["--recipe", "finetune", "--arguments.image_size", "64", "--batch_size", "2"]
    assert main([*words, str(tmp_path / "b.png"), *small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "a.jpg"], "the sheet is a PNG picture"),
        (["--out", "a.png", "--optimizer.lr", "1"], "--optimizer.lr is a setting of a recipe: give the recipe too"),
        (["--out", "a.png", "--recipe", "nope"], "unknown recipe 'nope'"),
        ([], "data show needs --out FILE.png"),
    ],
)
def test_what_cannot_be_drawn(words: list[str], said: str, tiny_voc: Path, capsys: Capture) -> None:
    assert main(["data", "show", str(tiny_voc), *words]) == 2
    assert said in capsys.readouterr().err
