"""Training runs on small real sets (bccd, chess), fixed before the first of them: data, settings, seeds.

    python benchmarks/small_sets.py run DATA [--only bccd-0 ...] [--runs runs/small_sets]
    python benchmarks/small_sets.py table          # the Markdown table of docs/results.md, from the recorded lines
    python benchmarks/small_sets.py zoo RUNS       # the recorded runs' weights, in 16 bits, with model cards

DATA holds the folders `bccd`, `chess` and `weights`. Runs are made one after the other; one that is finished is skipped
and one that was stopped is resumed, so the script may be started again at any time. A finished run leaves one line in
`benchmarks/results/small_sets.jsonl`. Measured are the last (averaged) weights, on the split `val`, by `singleshot
evaluate`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import singleshot as ss

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


# Chosen on a part of the training images (bccd: 160 to train on, 45 to choose by, 16 epochs: AP 0.529 against 0.496
# with the authors' scales of crop and expansion): both sets were taken with one camera at one distance.
GENTLE = ("--augmentation.crop_scale 0.5", "--augmentation.expand_maximum 2")
CHEAP = ("--arguments.frozen_stages 2", "--compute.channels_last true")
BCCD = ("--arguments.image_size [288,384]", *CHEAP, *GENTLE, "--augmentation.vertical_flip true", "--epochs 100")
CHESS = ("--arguments.image_size 352", *CHEAP, *GENTLE, "--epochs 60")
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
    commit = _said("git", "rev-parse", "--short", "HEAD")
    subprocess.run(_words(command, data), check=True)
    command = f"singleshot evaluate {folder}/last.safetensors $DATA/{run.dataset} --format voc --split val --json"
    measured = subprocess.run(_words(command, data), check=True, stdout=subprocess.PIPE, text=True)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    line = {
        "name": run.name,
        "dataset": run.dataset,
        "command": run.command(),
        "commit": commit,
        "date": date.today().isoformat(),
        "machine": _machine(),
        "minutes": _minutes(log),
        "metrics": json.loads(measured.stdout),
        "curve": [
            [round(entry["epoch"], 2), round(entry["metrics"]["coco"]["AP"], 4)]
            for entry in log
            if entry["kind"] == "validation"
        ],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _minutes(log: list[dict[str, Any]]) -> float:
    """Time that the run took, validation included; where it was stopped and resumed the gap does not count."""
    times = [entry["time"] for entry in log if "time" in entry]
    return round(sum(min(after - before, 600) for before, after in itertools.pairwise(times)) / 60, 1)


def _said(*words: str) -> str:
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip()


def _machine() -> str:
    return f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def _table() -> str:
    """One row per recorded run."""
    rows = ["| run | AP | AP50 | AP75 | VOC10 mAP | minutes | commit | date |", "|---|---|---|---|---|---|---|---|"]
    for line in _lines():
        coco, voc = line["metrics"]["coco"], line["metrics"]["voc10"]["mAP"]
        numbers = " | ".join(f"{value:.3f}" for value in (coco["AP"], coco["AP50"], coco["AP75"], voc))
        rows.append(f"| {line['name']} | {numbers} | {line['minutes']} | {line['commit']} | {line['date']} |")
    return "\n".join(rows)


CARD = """# {title}

SSD on MobileNetV2, {size}, {classes} classes: {names}. Weights in 16 bits; the levels whose default
boxes are larger than any object of the set are left out.

| | |
|---|---|
| data | {data} |
| licence of the data | {licence} |
| backbone began from | MobileNetV2 trained on ImageNet-1k (google-coral/test_data, Apache-2.0) |
| licence of these weights | Apache-2.0 |
| trained | {date}, {minutes} minutes on {machine}, commit {commit} |
| command | `{command}` |
| split `val`, measured by `singleshot evaluate` on this file | COCO AP {AP:.3f}, AP50 {AP50:.3f}, AP75 {AP75:.3f} |

What it has not seen, it does not know: other microscopes, boards, cameras and light need data of their own.
"""
ABOUT = {
    "bccd": (
        "Blood cells",
        "BCCD: stained blood smears, 640x480; 205 training and 87 validation images (Shenggan/BCCD_Dataset)",
        "MIT",
    ),
    "chess": (
        "Chess pieces",
        "Chess Pieces: one board from one camera, 416x416; 202 training and 58 validation images (Roboflow)",
        "public domain",
    ),
}


# Levels that the objects of a set need: no piece is larger than the boxes of the third, no cell than those of the
# fourth.
LEVELS = {"bccd": (0, 1, 2, 3), "chess": (0, 1, 2)}


def _with_levels(detector: ss.Detector, levels: tuple[int, ...]) -> ss.Detector:
    """The same detector without its coarsest levels, which find nothing on the set: a smaller file."""
    arguments = {**detector.arguments, "backbone_weights": None, "source_maps": levels, "stack_boxes": False}
    smaller = ss.ssd(**arguments, class_names=detector.class_names, category_ids=detector.category_ids)
    weights = detector.state_dict()
    smaller.load_state_dict({name: weights[name] for name in smaller.state_dict()})
    return smaller.eval()


def _zoo(data: Path, runs: Path, target: Path) -> None:
    for line in _lines():
        dataset, seed = line["name"].rsplit("-", 1)
        if seed != "0":
            continue
        path = target / f"{dataset}.safetensors"
        ss.save(_with_levels(ss.load(runs / line["name"] / "last.safetensors"), LEVELS[dataset]), path, half=True)
        command = f"singleshot evaluate {path} $DATA/{dataset} --format voc --split val --json"
        measured = subprocess.run(_words(command, data), check=True, stdout=subprocess.PIPE, text=True)
        metrics = json.loads(measured.stdout)
        detector = ss.load(path)
        ss.save(detector, path, half=True, metrics=metrics)
        title, source, licence = ABOUT[dataset]
        card = CARD.format(
            title=title,
            size="x".join(str(side) for side in detector.image_size) + " pixels (height x width)",
            classes=detector.num_classes,
            names=", ".join(detector.class_names),
            data=source,
            licence=licence,
            **{key: line[key] for key in ("date", "minutes", "machine", "commit", "command")},
            **metrics["coco"],
        )
        (target / f"{dataset}.md").write_text(card)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {metrics['coco']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table", "zoo"])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", nargs="*", help="names of runs")
    parser.add_argument("--runs", type=Path, default=Path("runs/small_sets"))
    parser.add_argument("--zoo", type=Path, default=Path("zoo"))
    options = parser.parse_args()
    if options.what == "table":
        print(_table())
        return
    if options.data is None:
        parser.error("DATA is needed: the folder that holds bccd, chess and weights")
    if options.what == "zoo":
        _zoo(options.data, options.runs, options.zoo)
        return
    for run in RUNS:
        if (options.only is None or run.name in options.only) and not _finished(run):
            _train(run, options.data, options.runs)


if __name__ == "__main__":
    main()
