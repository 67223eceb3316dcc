"""The time that `singleshot detect` takes, measured in processes of its own."""

from __future__ import annotations

import json

import load_time
import pytest


@pytest.mark.slow
def test_the_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["load_time.py", "--rounds", "1", "--json"])
    load_time.main()
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["wall", "processor"]
    assert found["wall"]["now"] > 0.1
    assert found["processor"]["now"] > 0.1
