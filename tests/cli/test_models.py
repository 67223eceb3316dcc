"""`singleshot models`."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from singleshot import detectors
from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def once() -> Iterator[None]:
    """Both forms from one list: every network is built for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "models", functools.cache(detectors.models))
        yield


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
