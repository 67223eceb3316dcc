"""singleshot.cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from singleshot.cache import cache_folder
from singleshot.errors import UserError


def test_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SINGLESHOT_CACHE", "here")
    assert cache_folder("weights") == tmp_path / "here" / "weights"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SINGLESHOT_CACHE", "~/kept")
    assert cache_folder("weights") == tmp_path / "kept" / "weights"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "/home/me/.cache/singleshot"),
        ("linux", {"XDG_CACHE_HOME": "/fast"}, "/fast/singleshot"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/singleshot"),
        ("darwin", {"XDG_CACHE_HOME": "/fast"}, "/home/me/Library/Caches/singleshot"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/singleshot/cache"),
        ("win32", {}, "/home/me/AppData/Local/singleshot/cache"),
    ],
)
def test_where_the_system_keeps_caches(
    platform: str, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SINGLESHOT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("sys.platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("weights") == Path(folder) / "weights"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SINGLESHOT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", none)
    with pytest.raises(UserError, match="no home folder .* set SINGLESHOT_CACHE"):
        cache_folder("weights")
