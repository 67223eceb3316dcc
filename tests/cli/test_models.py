"""`singleshot models`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


def test_models(capsys: Capture) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "input", "parameters", "boxes", "GFLOPs", "weights", "published"]
    (line,) = [line for line in lines if line.startswith("ssd300_vgg16 ")]
    assert "300x300" in line
    assert "8,732" in line
    assert "imagenet" in line
    assert " trained" in line
    assert any(line.startswith("  ssd300_vgg16: ssd300_vgg16-coco, ") for line in lines)


def test_json(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINGLESHOT_CACHE", str(tmp_path))
    assert main(["models", "--json"]) == 0
    found = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert found["ssd300_vgg16"]["boxes"] == 8732
    assert found["ssd512_vgg16"]["boxes"] == 24564
    for model in found.values():
        assert list(model) == [
            "name", "builder", "arguments", "input", "parameters", "boxes", "gflops", "published", "weights",
        ]  # fmt: skip
    (first, *_) = found["iou_retinanet_r50"]["weights"]
    assert (first["word"], first["name"], first["here"]) == ("imagenet", "resnet50-imagenet", False)


def test_no_network_is_built_for_it() -> None:
    code = (
        "import sys; from singleshot.cli import main; assert main(['models']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
