"""The terminal takes every text."""

from __future__ import annotations

import io

import pytest

from singleshot.terminal import put, say


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_text_can_be_printed(encoding: str) -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    say("Käfer 猫 caf\udce9 \x1b[2J\n\u202eend", written)
    put("猫\udce9", written)
    text = written.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "\\udce9 \\x1b[2J\n\\u202eend\n" in text
    assert ("猫" in text) == (encoding == "utf-8")


def test_a_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"begin{'x' * 9_000_000}end\nnext")
    line, after, _ = capsys.readouterr().err.split("\n")
    assert (line[:6], line[-4:]) == ("beginx", "xend")
    assert "letters" in line
    assert len(line) <= 4000
    assert after == "next"
