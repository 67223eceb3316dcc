"""Detections as lines of JSON, from Python and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from singleshot.cli import main
from singleshot.errors import UserError
from singleshot.inference import predictor
from singleshot.inference.lines import line, writer
from singleshot.inference.results import to_json
from singleshot.prediction import Prediction

Capture = pytest.CaptureFixture[str]


def prediction(path: str = "a.jpg", score: float = 0.5) -> Prediction:
    return Prediction([[1, 2, 3, 4]], [score], [0], ("cell",), (7,), (20, 30), path)


def test_a_line_is_the_entry_of_json() -> None:
    assert json.loads(line(prediction())) == to_json([prediction()])[0]
    assert line(prediction("zwei\nZeilen ü.jpg")).count("\n") == 1


def test_what_is_no_number_is_null() -> None:
    found = Prediction([[np.nan, 2, np.inf, 4]], [np.nan], [0], ("cell",), (7,), (20, 30), "a.jpg")
    one = json.loads(line(found))["detections"][0]
    assert (one["box"], one["score"]) == ([None, 2, None, 4], None)


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    with writer(str(path)) as write:
        assert write is not None
        for k in range(3):
            write(prediction(f"{k}.jpg"))
            assert len(path.read_text().splitlines()) == k + 1
    assert [json.loads(one)["image"] for one in path.read_text().splitlines()] == ["0.jpg", "1.jpg", "2.jpg"]


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"found\.jsonl exists already; .* --overwrite"), writer(str(path)):
        pass
    assert path.read_text() == "mine"
    with writer(str(path), overwrite=True) as write:
        assert write is not None
        write(prediction())
    assert path.read_text() == line(prediction())
    with pytest.raises(UserError, match="cannot be written"), writer(str(tmp_path / "no" / "x.jsonl")):
        pass


@pytest.fixture
def photos(tiny_voc: Path) -> list[str]:
    return [str(path) for path in sorted((tiny_voc / "JPEGImages").iterdir())]


def test_on_the_command_line(tiny_model: Path, photos: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main(["detect", str(tiny_model), *photos, "--jsonl", "-", "--threshold", "0"]) == 0
    lines = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
    assert main(["detect", str(tiny_model), *photos, "--json", "--threshold", "0", "--workers", "0"]) == 0
    assert lines == json.loads(capsys.readouterr().out)
    path = tmp_path / "found.jsonl"
    assert main(["detect", str(tiny_model), *photos, "--jsonl", str(path), "--threshold", "0"]) == 0
    assert f"{len(photos)} images: the lines are in {path}" in capsys.readouterr().out
    assert [json.loads(one) for one in path.read_text().splitlines()] == lines


def test_two_documents_on_stdout_are_refused(tiny_model: Path, photos: list[str], capsys: Capture) -> None:
    assert main(["detect", str(tiny_model), *photos, "--jsonl", "-", "--json"]) == 2
    assert "both write to stdout" in capsys.readouterr().err


def test_ctrl_c_leaves_whole_lines(
    tiny_model: Path, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = predictor.iterate

    def cut(*given: Any, **named: Any) -> Iterator[Prediction]:
        yield next(iter(real(*given, **named)))
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "iterate", cut)
    path = tmp_path / "found.jsonl"
    assert main(["detect", str(tiny_model), *photos, "--jsonl", str(path)]) == 130
    assert [json.loads(one)["image"] for one in path.read_text().splitlines()] == photos[:1]
