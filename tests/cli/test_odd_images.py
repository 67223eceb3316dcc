"""What the terminal shows of images that Pillow itself warns of."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from singleshot.cli import main


def test_a_tiff_with_odd_tags_does_not_fill_the_terminal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tags = b"".join(struct.pack("<HHII", 40000 + k, 4, 2**20, 8) for k in range(300))  # longer than the file
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", 300) + tags + struct.pack("<I", 0))
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}
    content = {"images": [{"id": 1, "file_name": "a.tif"}], "annotations": [annotation]}
    (tmp_path / "val.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "ant"}]}))
    assert main(["data", "check", str(tmp_path / "val.json")]) == 2
    out, err = capsys.readouterr()
    assert "a.tif" in out
    assert len((out + err).splitlines()) < 20
    assert not [one for one in recwarn if "PIL" in one.filename]
