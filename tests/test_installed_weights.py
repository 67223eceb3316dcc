"""singleshot.installed_weights."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from singleshot.installed_weights import EXTRA, PACKAGES, installed_weights

ROOT = Path(__file__).resolve().parents[1]


def test_the_file_is_found_and_the_package_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "singleshot_toy_weights"
    monkeypatch.setattr("singleshot.installed_weights.PACKAGES", {"toy": name})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_weights("toy") is None
    (tmp_path / name / "models").mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('this package must not run')")
    assert installed_weights("toy") is None  # the package without its file
    (tmp_path / name / "models" / "toy-0.pth").touch()
    assert installed_weights("toy") == tmp_path / name / "models" / "toy-0.pth"
    assert name not in sys.modules
    assert installed_weights("resnet50") is None


def test_the_extra_installs_all_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"][EXTRA]
    assert [line.partition(">")[0].replace("-", "_") for line in lines] == list(PACKAGES.values())
