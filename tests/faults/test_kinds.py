"""A few cases of every kind; `make faults` runs many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.kinds import KINDS

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the cases run in forked processes")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All in one process that forks: this one may have threads."""
    return run(tmp_path_factory.mktemp("faults"), "--fast", "--kind", *KINDS)[0]


def run(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """Run the suite; returns the outcome of each kind, and what it printed."""
    path = os.pathsep.join([str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    program = (
        "import sys; from faults.__main__ import main; from faults.kinds import KINDS; KINDS['toy'] = 'toy_kind'; "
    )
    keep = ["--jobs", "1", "--keep", str(folder), "--json", str(folder / "out.json")]
    done = subprocess.run(
        [sys.executable, "-c", f"{program} sys.exit(main())", *keep, *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stderr
    assert (folder / "out.json").exists(), done.stderr
    found = json.loads((folder / "out.json").read_text())
    assert done.returncode == int(any(outcome["faults"] for outcome in found))
    return {outcome["name"]: outcome for outcome in found}, done.stdout


@pytest.mark.parametrize("name", KINDS)
def test_a_kind(outcomes: dict[str, Any], name: str) -> None:
    if name not in outcomes:
        pytest.skip("only in the long suite: `make faults`")
    outcome = outcomes[name]
    assert outcome["cases"] > 0
    assert not outcome["faults"], "\n\n".join(outcome["faults"].values())


def test_faults_are_found(tmp_path: Path) -> None:
    outcomes, said = run(tmp_path, "--kind", "toy", "--cases", "8", "--seed", "5")
    faults = outcomes["toy"]["faults"]
    assert outcomes["toy"]["cases"] == 8
    assert {number: text.splitlines()[-1 if number == "1" else 0] for number, text in faults.items()} == {
        "1": "AssertionError: wrong",
        "2": "stuck for 0.5 s",
        "3": "the process ended with -9",
        "4": faults["4"],
    }
    assert "in check" in faults["2"], "it says where"
    assert faults["4"].endswith("MB of memory, 100 are allowed")
    assert (tmp_path / "toy-5" / "1" / "content").read_bytes() == b"1"
    assert 'make faults ARGS="--kind toy --seed 5 --case 3"' in said
