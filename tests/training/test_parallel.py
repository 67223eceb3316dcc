"""Two processes compute what one does with the doubled batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from singleshot.training import override, to_yaml, train
from singleshot.training.recipe import Recipe

HERE = Path(__file__).parent


def entries(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    """Batches of one image, every third image without objects: often a process has nothing to find."""
    recipe = make_recipe(batch_size=2, arguments={"dropout": 0.0}, log__every=1, schedule__steps=12)
    train(recipe, out=tmp_path / "one")
    (tmp_path / "recipe.yaml").write_text(to_yaml(override(recipe, {"batch_size": 1})))
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nimport torch\ntorch.set_num_threads(1)\n"
        "from singleshot.training import from_yaml, train\n"
        "result = train(from_yaml(sys.argv[1]), out=sys.argv[2], builder='tiny_detector:tiny')\n"
        "assert result.metrics and result.last.exists()\n"
    )
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *map(str, (program, tmp_path / "recipe.yaml", tmp_path / "two")),
        ],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = entries(tmp_path / "one", "step"), entries(tmp_path / "two", "step")
    assert [line["step"] for line in two] == list(range(1, 13))  # written once
    for a, b in zip(one, two, strict=True):
        assert a["rate"] == b["rate"]
        assert b["losses"] == pytest.approx(a["losses"], rel=2e-5, abs=1e-6)
    first, second = load_file(tmp_path / "one/last.safetensors"), load_file(tmp_path / "two/last.safetensors")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)
    for a, b in zip(entries(tmp_path / "one", "validation"), entries(tmp_path / "two", "validation"), strict=True):
        assert b["metrics"]["coco"] == pytest.approx(a["metrics"]["coco"], abs=1e-3)
