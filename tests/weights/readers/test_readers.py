"""Files of weights of every kind: recognised by their first bytes, and read or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from singleshot.errors import UserError
from singleshot.weights.readers import READERS, find_reader, read


def test_a_reader_is_a_file_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(READERS, "toy", "toy_reader")
    path = tmp_path / "weights.any"
    path.write_text("TOY\na 1 2\nb 3\n")
    source = read(path)
    assert source.shapes == {"a": (2,), "b": (1,)}
    assert (source.notes, source.where) == ({"lines": 2}, f"{path}: ")
    path.write_text("TOY\na 1 two\n")
    with pytest.raises(UserError, match=r"weights\.any: line 2: expected a name and numbers"):
        read(path)


def test_metadata_of_safetensors_are_notes(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"who": "me"})
    source = read(tmp_path / "a.safetensors")
    assert source.notes == {"who": "me"}
    assert source.shapes == {"a": (2,)}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_takes_any_bytes(name: str, tmp_path: Path) -> None:
    reader = find_reader(name)
    assert reader.TITLE
    for start in (b"", b"\0", b"{", b"\xff" * 64):
        assert isinstance(reader.recognises(start), bool)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UserError, match="empty: "):
        read(tmp_path / "empty")
