"""`--help` is quick because it imports nothing heavy; how quick is measured by benchmarks/help_time.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

import singleshot
from singleshot.cli import main, verbs

HEAVY = ("torch", "cv2", "matplotlib", "accelerate", "hotcoco", "numpy", "PIL", "pycocotools")
PROBE = f"""
import sys
from singleshot.cli import main
code = main(sys.argv[1:])
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["data", "--help"], *([*v.split(), "--help"] for v in verbs())]
)
def test_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["loaded:"]
    assert done.stdout.endswith("\n")


@pytest.mark.parametrize("verb", verbs())
def test_says_what_the_verb_takes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: singleshot {verb}")
    assert "--json" in said
    assert "null" not in said


def test_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"singleshot {verb} " in said for verb in verbs())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"singleshot {singleshot.__version__}\n"
