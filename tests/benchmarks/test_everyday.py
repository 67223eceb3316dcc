"""The general detector's run: one command starts it, continues it, and says how far it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import everyday
import pytest
import torch

import singleshot as ss
from singleshot.training.folder import only_one
from singleshot.training.recipe import from_yaml, override, to_yaml

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def words(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line with a plan of two steps, on small data, and a start for other classes."""
    changes = {
        "arguments.image_size": 64,
        "arguments.channels": 16,
        "arguments.backbone_options": {"width": 0.25, "padding": "same"},
        "batch_size": 2,
        "schedule.steps": 2,
        "validation.times": 2,
        "log.every": 1,
        "compute.precision": "fp32",
    }
    (tmp_path / "plan.yaml").write_text(to_yaml(override(from_yaml(everyday.RECIPE), changes)))
    monkeypatch.setattr(everyday, "RECIPE", tmp_path / "plan.yaml")
    shutil.copytree(tiny_voc, tmp_path / "data" / "voc07")
    (tmp_path / "out").mkdir()
    torch.manual_seed(0)
    same = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25, "padding": "same"}, "image_size": 64}
    ss.save(ss.ssd(num_classes=2, class_names=("cell", "cup"), **same), tmp_path / "out" / "start.safetensors")
    return ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]


def test_starts_continues_and_then_does_nothing(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert everyday.main(["--status", *words]) == 0
    assert "not started; `python benchmarks/everyday.py` starts it" in capsys.readouterr().out
    with only_one(out, "taken"):
        assert everyday.main(words) == 0  # it runs
    assert not (out / "run").exists()
    capsys.readouterr()

    assert everyday.main(words) == 0
    assert "tensors copied" in capsys.readouterr().err
    weights = (out / "run" / "last.safetensors").read_bytes()
    assert everyday.main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("step 2 of 2 (4 images shown), loss ")
    assert said[1].startswith("VOC07 mAP by step: 1: ")
    assert said[2:] == ["finished"]
    assert (out / "run" / "last.safetensors").read_bytes() == weights

    longer = (out / "run" / "recipe.yaml").read_text().replace("steps: 2\n", "steps: 3\n")
    (out / "run" / "recipe.yaml").write_text(longer)  # the length may change: the run is not finished then
    assert everyday.main(["--status", *words]) == 0
    assert "step 2 of 3" in capsys.readouterr().out
    with only_one(out, "taken"):
        assert everyday.main(words) == 0
    assert capsys.readouterr().out.endswith("it runs; the last line of its log is 0 minutes old\n")
    assert everyday.main(words) == 0
    assert "continuing after step 2" in capsys.readouterr().err


def test_without_the_data(tmp_path: Path, capsys: Capture) -> None:
    assert everyday.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "ssd_mobilenetv2_oidv4_labels.txt: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_start_is_the_imported_ssd(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everyday, "PHOTOGRAPHS", 2)
    everyday.make_start(shared, tmp_path / "start.safetensors")
    found = ss.load(tmp_path / "start.safetensors").predict(shared / "images" / "coral" / "cat_720p.jpg")
    assert found.names[0] == "Cat"
    assert found.scores[0] > 0.75


def test_the_plan_fits_its_bounds(shared: Path) -> None:
    """At most 15 MB in 16 bits, for the 20 classes."""
    recipe = from_yaml(everyday.RECIPE)
    with torch.device("meta"):
        detector = ss.refinedet(num_classes=20, **recipe.arguments)
    assert sum(value.numel() for value in detector.state_dict().values()) * 2 < 15e6
