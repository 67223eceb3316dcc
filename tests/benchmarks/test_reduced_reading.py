"""The script that compares whole and reduced pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reduced_reading


@pytest.mark.slow
def test_the_script(
    tiny_voc: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(tiny_model), str(tiny_voc), "--images", "2", "--rounds", "1", "--scale", "8", "--json"]
    monkeypatch.setattr("sys.argv", ["reduced_reading.py", *words])
    reduced_reading.main()
    found = json.loads(capsys.readouterr().out)
    assert found["factor"] > 1
    assert len(found["ms"]) == 4
