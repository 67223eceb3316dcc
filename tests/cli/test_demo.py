"""`singleshot demo`: parse, call, print; the demo itself is tested in tests/test_demo.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from singleshot import demo
from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the demo was asked for, without running it."""
    found: list[tuple[Any, ...]] = []

    def run_demo(*given: Any) -> dict[str, Any]:
        found.append(given)
        numbers = {"voc10": {"mAP": 0.8}, "coco": {"AP": float("nan")}, "seconds": 1.5, "run": Path("x/run")}
        return {**numbers, "text": "the table", "sheet": "x/findings.png"}

    monkeypatch.setattr(demo, "run_demo", run_demo)
    return found


def test_text(calls: list[tuple[Any, ...]], capsys: Capture) -> None:
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "the table\n"
    assert calls == [(None, 0)]


def test_json(calls: list[tuple[Any, ...]], capsys: Capture) -> None:
    assert main(["demo", "--out", "here", "--seed", "7", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"voc10": {"mAP": 0.8}, "coco": {"AP": None}, "seconds": 1.5, "run": "x/run"}
    assert calls == [("here", 7)]


def test_overwrites_nothing(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run").mkdir()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "overwrites nothing" in capsys.readouterr().err
