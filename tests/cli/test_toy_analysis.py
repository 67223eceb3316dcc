"""An analysis of one file, registered by one line, on the command line's own paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from singleshot.analysis import ANALYSES
from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANALYSES, "toy", "toy_analysis")


def test_help(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    assert "singleshot analyse toy     how far the centres are" in capsys.readouterr().out
    assert main(["analyse", "toy", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: singleshot analyse toy MODEL DATA [flags]\n")
    assert all(
        word in said for word in ("--json", "--out DIR", "--html FILE", "--from-score S", "--squares", "--split")
    )


def test_from_a_model_and_from_files(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["analyse", "toy", str(tiny_model), str(tiny_voc), "--device", "cpu"]
    assert main([*words, "--json", "--out", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cell"]["objects"] == document["other"]["objects"] == 2
    assert 0 < document["cell"]["offset"] < 120
    assert json.loads((tmp_path / "toy.json").read_text()) == document
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "page.html").read_text()
    assert "Offsets &lt;of&gt; centres" in page
    assert 'alt="a &amp; b"' in page
    assert f"{document['cell']['offset']:.2f}</td>" in page
    assert "<strong>Next:</strong> Train longer" in page

    assert main([*words, "--squares"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("4 objects\n\nclass  objects")
    assert said.endswith("\n\nNext: Train longer where the offsets are large.\n")
    assert f"{document['cell']['offset']:.2f}" not in said

    assert main(["evaluate", *words[2:], "--save-detections", str(tmp_path / "found")]) == 0
    capsys.readouterr()
    assert main(["analyse", "toy", "--detections", str(tmp_path / "found"), str(tiny_voc), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_nothing_found(tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    words = ["analyse", "toy", str(tiny_model), str(tiny_voc), "--device", "cpu", "--from-score", "1"]
    assert main(words) == 0
    assert "cell         0       -" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cell"] == {"objects": 0, "offset": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from-score", "2"], "--from-score: expected a number from 0 to 1, got '2'"),
        (["--form-score", "0"], "did you mean '--from-score'?"),
        (["--html", "page.txt"], "give the name of a file that ends in .html"),
    ],
)
def test_bad_input(words: list[str], said: str, tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    assert main(["analyse", "toy", str(tiny_model), str(tiny_voc), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    assert said in err


def test_unknown_name(capsys: Capture) -> None:
    assert main(["analyse", "toys", "MODEL", "DATA"]) == 2
    assert "'analyse' is followed by one of errors, run, loss, iou, toy" in capsys.readouterr().err
