"""Training runs on small real sets (bccd, chess), fixed before the first of them: data, settings, seeds.

    python benchmarks/small_sets.py run DATA [--only bccd-0 ...] [--runs runs/small_sets]
    python benchmarks/small_sets.py table          # the Markdown table of docs/results.md, from the recorded lines
    python benchmarks/small_sets.py zoo RUNS       # the recorded runs' weights, in 16 bits, with model cards

DATA holds the folders `bccd`, `chess` and `weights`. Runs are made one after the other; one that is finished is skipped and
one that was stopped is resumed, so the script may be started again at any time. A finished run leaves one line in
`benchmarks/results/small_sets.jsonl`. Measured are the last (averaged) weights, on the split `val`, by `singleshot evaluate`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "small_sets.jsonl"
WEIGHTS = "$DATA/weights/mobilenet_v2_imagenet.safetensors"


@dataclass(frozen=True)
class Run:
    """One run: its name, its set, and every argument of `singleshot train` beside DATA and --out."""

    name: str
    dataset: str
    arguments: tuple[str, ...]

    def command(self, runs: str = "runs") -> str:
        return f"singleshot train $DATA/{self.dataset} {' '.join(self.arguments)} --out {runs}/{self.name}"


def _settings(dataset: str, seed: int, *more: str) -> Run:
    shared = ("--format voc", "--recipe finetune", f"--backbone-weights {WEIGHTS}")
    return Run(f"{dataset}-{seed}", dataset, (*shared, *more, f"--seed {seed}"))


BCCD = ("--arguments.image_size [288,384]", "--epochs 90")
CHESS = ("--arguments.image_size 384", "--epochs 90")
RUNS = (_settings("bccd", 0, *BCCD), _settings("chess", 0, *CHESS))


def _words(command: str, data: Path) -> list[str]:
    words = [word.replace("$DATA", str(data)) for word in command.split()]
    return [sys.executable, "-m", *words]


def _finished(run: Run) -> bool:
    return any(line["name"] == run.name for line in _lines())


def _lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def _train(run: Run, data: Path, runs: Path) -> None:
    folder = runs / run.name
    command = f"singleshot train --resume {folder}" if folder.exists() else run.command(str(runs))
    print(command, flush=True)
    subprocess.run(_words(command, data), check=True)
    command = f"singleshot evaluate {folder}/last.safetensors $DATA/{run.dataset} --format voc --split val --json"
    measured = subprocess.run(_words(command, data), check=True, stdout=subprocess.PIPE, text=True)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    line = {
        "name": run.name,
        "dataset": run.dataset,
        "command": run.command(),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "date": date.today().isoformat(),
        "machine": _machine(),
        "minutes": round(sum(entry.get("seconds", 0.0) for entry in log) / 60, 1),
        "metrics": json.loads(measured.stdout),
        "curve": [entry for entry in log if "metrics" in entry or "validation" in entry],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _said(*words: str) -> str:
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip()


def _machine() -> str:
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
