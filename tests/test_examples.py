"""The examples with arguments, one after the other, as a reader would use them (without arguments: test_docs.py)."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import singleshot as ss
from singleshot.data.open import open_dataset
from singleshot.data.shapes import write_shapes
from singleshot.engines import named_engine
from singleshot.engines.graph import exportable
from singleshot.errors import UserError

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


def test_yolo_labels_become_coco_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    convert = example("yolo_to_coco")
    convert([])
    voc, yolo = Path("shapes_to_convert/voc"), Path("shapes_yolo")
    for split in ("train", "val"):
        wanted, found = open_dataset(voc, split=split), open_dataset(yolo, split=split)
        assert found.class_names == wanted.class_names
        assert len(found) == len(wanted)
        for one, other in zip(wanted.records, found.records, strict=True):
            assert (one.path.name, one.size) == (other.path.name, other.size)
            assert other.path.exists()
            np.testing.assert_array_equal(one.labels, other.labels)
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    before = (yolo / "annotations" / "instances_val.json").read_bytes()
    with pytest.raises(FileExistsError):
        convert([str(yolo)])
    assert (yolo / "annotations" / "instances_val.json").read_bytes() == before

    # Everything in one folder, a polygon, an image without labels, names in classes.txt.
    flat = Path("flat")
    flat.mkdir()
    for stem in ("a", "b"):
        Image.new("RGB", (100, 50)).save(flat / f"{stem}.png")
    (flat / "a.txt").write_text("1 0.1 0.2 0.5 0.2 0.3 0.8\n\n0 0.5 0.5 0.5 1\n")
    (flat / "classes.txt").write_text("cat\ndog\n")
    convert([str(flat)])
    records = open_dataset(flat).records
    np.testing.assert_allclose(records[0].boxes, [[10, 10, 50, 40], [25, 0, 75, 50]])
    assert records[0].labels.tolist() == [1, 0]
    assert len(records[1].boxes) == 0
    (flat / "b.txt").write_text("0 0.5 0.5\n")
    with pytest.raises(
        UserError, match=r"b.txt:1: expected `class x y width height`, or the corners of a polygon, got '0 0.5 0.5'"
    ):
        convert([str(flat)])


def test_a_plain_loop_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 < example("plain_training_loop")(steps=2) < 100
    assert "best score" in capsys.readouterr().out


def test_a_detector_from_parts(capsys: pytest.CaptureFixture[str]) -> None:
    example("your_own_detector")()
    assert "equal" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".xml")])
def test_exported_models_run_without_this_package(
    engine: str, suffix: str, tiny_model: Path, tiny_voc: Path, tmp_path: Path
) -> None:
    pytest.importorskip(engine, reason=f"needs {engine}: pip install 'singleshot[export,openvino]'")
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'singleshot[export]'")
    detector, picture = ss.load(tiny_model), tiny_voc / "JPEGImages" / "a.jpg"
    named_engine(engine).export(exportable(detector), tmp_path / f"model{suffix}")
    hidden = "import runpy, sys; sys.modules['singleshot'] = None; sys.modules['torch'] = None; "
    command = f"{hidden}runpy.run_path(sys.argv[1])['main'](*sys.argv[2:])"
    script = EXAMPLES / f"{engine}_alone.py"
    words = [sys.executable, "-c", command, str(script), str(tmp_path / f"model{suffix}"), str(picture)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = detector.predict(picture)
    assert len(told) == len(found) > 0
    name, score, *box = told[0].split(maxsplit=2)
    assert name == found.class_names[found.labels_array[0]]
    assert float(score) == pytest.approx(found.scores_array[0], abs=2e-3)
    assert len(script.read_text().split("def main")[1].split("if __name__")[0].strip().splitlines()) <= 16
    assert len(json.loads(box[0])) == 4
