"""A weights file run by another engine: converted once, kept in the cache, and it finds the same."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_files import need, onnx_model, small_spec

import singleshot as ss
from singleshot.cli import main
from singleshot.engines import onnxruntime as engine
from singleshot.engines.exported import ExportedDetector
from singleshot.errors import UserError

Capture = pytest.CaptureFixture[str]


class Made:
    """Counts the conversions, which write a tiny graph here. With `at_once`, so many wait for each other."""

    def __init__(self) -> None:
        self.number, self.meeting = 0, threading.Barrier(1)

    def __call__(self, form: Any, path: Path) -> None:
        assert form.spec.class_names == ("cell", "other")
        self.meeting.wait(60)
        path.write_bytes(onnx_model(small_spec()).SerializeToString())
        self.number += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Made:
    need("onnx")
    need("onnxruntime")
    found = Made()
    monkeypatch.setattr(engine, "export", found)
    monkeypatch.setenv("SINGLESHOT_CACHE", str(tmp_path / "cache"))
    return found


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "engines").iterdir())


def white(model: Any) -> list[float]:
    found: list[float] = model.predict(np.full((8, 16, 3), 255, np.uint8)).scores_array.tolist()
    return found


def test_it_is_converted_once(made: Made, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = ss.load(tiny_model, engine="onnxruntime")
    assert "is converted for ONNX Runtime" in caplog.text
    assert isinstance(model, ExportedDetector)
    assert model.path == str(tiny_model)
    assert white(model) == [1]
    again = tmp_path / "again.safetensors"  # the same content under another name
    shutil.copy(tiny_model, again)
    assert white(ss.load(again, engine="onnxruntime", precision="fp32", threads=1)) == [1]
    assert made.number == 1
    assert sorted(path.name for path in entries(tmp_path)[0].iterdir()) == ["model.onnx", "sums.json"]


def test_other_versions_and_other_weights_are_converted_anew(
    made: Made, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ss.load(tiny_model, engine="onnxruntime")
    monkeypatch.setattr("singleshot.engines.converted.__version__", "9.9")
    ss.load(tiny_model, engine="onnxruntime")
    other = tmp_path / "other.safetensors"
    ss.save(ss.load(tiny_model), other, recipe={"name": "other"})
    ss.load(other, engine="onnxruntime")
    assert made.number == len(entries(tmp_path)) == 3


@pytest.mark.parametrize("broken", ["cut", "changed", "no sums", "a file"])
def test_an_entry_that_is_broken_is_made_anew(broken: str, made: Made, tiny_model: Path, tmp_path: Path) -> None:
    ss.load(tiny_model, engine="onnxruntime")
    (entry,) = entries(tmp_path)
    content = (entry / "model.onnx").read_bytes()
    if broken == "a file":
        shutil.rmtree(entry)
        entry.write_text("x")
    elif "sums" in broken:
        (entry / "sums.json").write_text("[")
    else:
        (entry / "model.onnx").write_bytes(content[:-9] if broken == "cut" else content[:-1] + b"\0")
    assert white(ss.load(tiny_model, engine="onnxruntime")) == [1]
    assert made.number == 2
    assert [path.name for path in entries(tmp_path)] == [entry.name]


def test_two_at_once(made: Made, tiny_model: Path, tmp_path: Path) -> None:
    made.meeting = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: ss.load(tiny_model, engine="onnxruntime"), range(3)))
    assert [white(model) for model in models] == [[1]] * 3
    assert len(entries(tmp_path)) == 1


def test_without_a_cache(made: Made, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINGLESHOT_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for number in (1, 2):
        assert white(ss.load(tiny_model, engine="onnxruntime")) == [1]
        assert made.number == number
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "cache").exists()


def test_a_conversion_that_fails_leaves_nothing(
    made: Made, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(form: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "export", fails)
    with pytest.raises(UserError, match="cannot be written .No space left on device.; set SINGLESHOT_CACHE"):
        ss.load(tiny_model, engine="onnxruntime")
    assert entries(tmp_path) == []


def test_what_is_refused(made: Made, tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(UserError, match="int8 needs images .* --calibrate DATA --out model.onnx"):
        ss.load(tiny_model, engine="onnxruntime", precision="int8")
    with pytest.raises(UserError, match="gone.safetensors: cannot be read"):
        ss.load(tmp_path / "gone.safetensors", engine="onnxruntime")
    (tmp_path / "cache").write_text("a file")
    assert main(["detect", str(tiny_model), "x.jpg", "--engine", "onnxruntime"]) == 2
    assert "set SINGLESHOT_CACHE to another folder" in capsys.readouterr().err
    assert main(["detect", str(tiny_model), "x.jpg", "--engine", "openvin"]) == 2
    assert "engine 'openvin' is not known (did you mean 'openvino'?)" in capsys.readouterr().err


ZOO = Path(__file__).parents[2] / "zoo" / "bccd.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_every_engine_finds_the_same_objects(
    name: str, tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes to 0.01 pixels and 1e-5 of the side, scores to 1e-4; within 1e-3 of the threshold both may be right."""
    need("onnxscript")
    need(name)
    monkeypatch.setenv("SINGLESHOT_CACHE", str(tmp_path))
    shared = Path(__file__).parents[3] / "shared" / "data" / "bccd" / "JPEGImages"
    pictures = sorted((shared if shared.is_dir() else tiny_voc / "JPEGImages").iterdir())[:12]
    detector, model = ss.load(ZOO, precision="fp32"), ss.load(ZOO, engine=name, precision="fp32")
    threshold, matched = 0.2, 0
    for found, expected in zip(model.predict(pictures), detector.predict(pictures), strict=True):
        tolerance = 0.01 + 1e-5 * max(expected.size)
        for one, other in ((found, expected), (expected, found)):
            for box, score, label in zip(one.boxes_array, one.scores_array, one.labels_array, strict=True):
                if score < threshold + 1e-3:
                    continue
                apart = np.abs(other.boxes_array - box).max(1)
                same = (apart <= tolerance) & (np.abs(other.scores_array - score) <= 1e-4)
                assert (same & (other.labels_array == label)).any()
                matched += 1
    assert matched > 100 or not shared.is_dir()
