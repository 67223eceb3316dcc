"""Images per second of training, measured in processes of their own."""

from __future__ import annotations

import json

import pytest
import training_speed


@pytest.mark.slow
def test_the_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["training_speed.py", "--detectors", "ssd", "--size", "64", "--rounds", "1", "--steps", "2", "--json"]
    monkeypatch.setattr("sys.argv", words)
    training_speed.main()
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["ssd"]
    assert found["ssd"]["now"] > 0.1
