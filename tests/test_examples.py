"""The examples with arguments, one after the other, as a reader would use them (without arguments: test_docs.py)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from singleshot.data.shapes import write_shapes

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str) -> Any:
    """The main function of an example."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_train_then_detect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_shapes("data", train=4, val=2) / "coco"
    quick = ["--epochs", "1", "--size", "64", "--batch-size", "2"]
    example("train_on_your_folder")([str(data), *quick, "--out", "run"])
    assert {"recipe.yaml", "best.safetensors", "findings.png"} <= {path.name for path in Path("run").iterdir()}
    assert "all (mean)" in capsys.readouterr().out

    arguments = ["run/best.safetensors", "data/coco/val", "--threshold", "0", "--top-k", "3", "--out", "found"]
    example("detect_and_draw")(arguments)
    assert sorted(path.name for path in Path("found").glob("val_*")) == ["val_00000.jpg", "val_00001.jpg"]
    entries = json.loads(Path("found/detections.json").read_text())
    assert {entry["image_id"] for entry in entries} == {"val_00000", "val_00001"}
    assert len(entries) == 6
    assert {entry["category_id"] for entry in entries} <= {1, 2, 3, 4, 5}


def test_a_plain_loop_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 < example("plain_training_loop")(steps=2) < 100
    assert "best score" in capsys.readouterr().out


def test_a_detector_from_parts(capsys: pytest.CaptureFixture[str]) -> None:
    example("your_own_detector")()
    assert "equal" in capsys.readouterr().out
