"""`singleshot recipes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from singleshot import recipes
from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


def test_the_list(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(recipes.names())
    voc = next(line for line in lines if line.startswith("refinedet320_voc "))
    assert voc.split()[1:5] == ["refinedet", "32", "120,000", "steps"]
    assert "80 (VOC2007 test" in voc
    assert main(["recipes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [recipe["name"] for recipe in document] == list(recipes.names())


@pytest.mark.parametrize("name", ["finetune", "by_heart", "iou_retinanet_r50_coco"])
def test_one_of_them_is_a_file_to_change(name: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["recipes", name]) == 0
    file = tmp_path / "mine.yaml"
    file.write_text(capsys.readouterr().out)
    assert recipes.load(file) == recipes.get(name)
    file.write_text(file.read_text().replace("seed: 0", "seed: 7"))
    assert main(["recipes", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_an_unknown_name(capsys: Capture) -> None:
    assert main(["recipes", "finetun"]) == 2
    assert "did you mean finetune?" in capsys.readouterr().err
    assert main(["recipes", "q"]) == 2
    assert "`singleshot recipes` lists them" in capsys.readouterr().err
