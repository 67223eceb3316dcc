"""Weights of runs that are worth keeping, in 16 bits, with model cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import singleshot as ss
from recorded import runner

CARD = """# {title}

{detector} on MobileNetV2, {size}, {classes} classes: {names}. Weights in 16 bits. Two things differ from
the run: the levels whose default boxes are larger than any object of the set are left out, and boxes are
voted (`vote` {vote}).

| | |
|---|---|
| data | {data} |
| licence of the data | {licence} |
| backbone initialised from | MobileNetV2 trained on ImageNet-1k (google-coral/test_data, Apache-2.0) |
| licence of these weights | Apache-2.0 |
| trained | {date}, {minutes} minutes on {machine}, commit {commit} |
| command | `{command}` |
| split `val`, measured by `singleshot evaluate` on this file | COCO AP {AP:.3f}, AP50 {AP50:.3f}, AP75 {AP75:.3f} |

The detector works only on images like its training data. For other microscopes, boards, cameras or light, train
with your own data.
"""

KEPT = ("bccd-0", "chess-0")
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


# The levels that the objects of a dataset need: no chess piece is larger than the boxes of the third level, and no cell
# is larger than those of the fourth.
LEVELS = {"bccd": (0, 1, 2, 3), "chess": (0, 1, 2)}


VOTE = ss.recipes.get("finetune").defaults["vote"]


def _improved(detector: ss.Detector, levels: tuple[int, ...]) -> ss.Detector:
    """The same detector with box voting, and without its coarsest levels, which find nothing on the dataset."""
    changes = {"backbone_weights": None, "source_maps": levels, "stack_boxes": False, "vote": VOTE}
    arguments = {**detector.arguments, **changes}
    smaller = ss.ssd(**arguments, class_names=detector.class_names, category_ids=detector.category_ids)
    weights = detector.state_dict()
    smaller.load_state_dict({name: weights[name] for name in smaller.state_dict()})
    return smaller.eval()


def write(data: Path, runs: Path, target: Path) -> None:
    """Write `target`/SET.safetensors and its card for each run in `KEPT`. Their run folders must exist.

    Raises:
        UserError: a run has no line or no weights.
    """
    lines = runner.read()
    for name in KEPT:
        last = runs / name / "last.safetensors"
        if name not in lines or not last.exists():
            raise ss.UserError(f"{last}: run {name} is not finished; make it with: python benchmarks/evidence.py run")
        line = lines[name]
        dataset = line["dataset"]
        path = target / f"{dataset}.safetensors"
        detector = _improved(ss.load(last), LEVELS[dataset])
        ss.save(detector, path, half=True)
        metrics = runner.measured(path, dataset, data)
        ss.save(ss.load(path), path, half=True, metrics=metrics)
        path.with_suffix(".md").write_text(_card(line, detector, metrics))
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {metrics['coco']}")


def _card(line: dict[str, Any], detector: ss.Detector, metrics: dict[str, Any]) -> str:
    title, source, licence = ABOUT[line["dataset"]]
    machine = line["machine"]  # older lines have a text
    return CARD.format(
        title=title,
        vote=VOTE,
        size="x".join(str(side) for side in detector.image_size) + " pixels (height x width)",
        classes=detector.num_classes,
        names=", ".join(detector.class_names),
        data=source,
        licence=licence,
        machine=machine if isinstance(machine, str) else f"{machine['cores']} CPU cores, Python {machine['python']}",
        **{key: line[key] for key in ("detector", "date", "minutes", "commit", "command")},
        **metrics["coco"],
    )
