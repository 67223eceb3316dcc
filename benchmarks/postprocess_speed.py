"""Milliseconds from predictions to detections, of suppression and of drawing: now, before, and torchvision's.

    python benchmarks/postprocess_speed.py [--against GIT_REF] [--torchvision PYTHON] [--rounds 7] [--only WORDS]

Every row has a score load as of a trained detector, made in advance: objects, with anchors near them that score high
for their class, and a background in which a stated share of the scores passes the threshold. `zoo/...` are the trained
models over photographs of `shared/data` (left out where that is missing). All run on one thread. Each side is a process
of its own; in every round the sides run a row right after each other, so that a busy machine disturbs them alike.
Printed are the medians of processor time and of the ratios within the rounds.

`--against GIT_REF` also runs the package as it was at that commit, in a temporary checkout. `--torchvision PYTHON` runs
torchvision's `batched_nms` on the same boxes, with the Python of an environment that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
Action = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """What is measured: `make` prepares it and gives what is timed. `target`: milliseconds."""

    make: Callable[[], Action | None]
    target: float | None = None


def near_objects(
    boxes: Any, classes: int, *, softmax: bool, passing: float, threshold: float = 0.01, seed: int = 0
) -> dict[str, Any]:
    """Predictions for anchors [A, 4]: about the share `passing` of all scores is above the threshold."""
    import torch

    from singleshot.ops.boxes import pairwise_iou

    generator = torch.Generator().manual_seed(seed)
    number = len(boxes)
    chosen = torch.randint(number, (15,), generator=generator)
    owner = pairwise_iou(boxes[chosen], boxes)
    near, which = owner.max(0)
    logits = torch.randn(1, number, classes + softmax, generator=generator)
    label = torch.randint(classes, (15,), generator=generator)[which]
    raised = (near > 0.4).nonzero()[:, 0]
    logits[0, raised, label[raised]] += 8 * near[raised]
    probability = torch.full((), threshold)
    if softmax:  # raise the background until only the share passes
        low, high = -10.0, 20.0
        for _ in range(25):
            logits[..., -1] = middle = (low + high) / 2
            share = (logits.softmax(-1)[..., :-1] > threshold).float().mean()
            low, high = (middle, high) if share > passing else (low, middle)
    else:
        cut = logits.flatten().kthvalue(max(1, int((1 - passing) * logits.numel()))).values
        logits += probability.logit() - cut
    deltas = torch.randn(1, number, 4, generator=generator) * 0.3
    return {"class_logits": logits, "box_deltas": deltas}


def of_detector(
    name: str, classes: int, passing: float, *, threshold: float | None = None, **arguments: Any
) -> Callable[[], Action]:
    """Post-processing of a detector of that name, whose network is never run."""

    def make() -> Action:
        import torch

        import singleshot as ss
        from singleshot.losses.classification import SoftmaxLoss
        from singleshot.ops.shapes import without_values

        with without_values():
            detector = ss.create(name, num_classes=classes, **arguments)
        anchors = detector.anchors_for(detector.image_size, "cpu")
        step: Any = detector.postprocess
        loss = step.scores.classification
        used = step.threshold if threshold is None else threshold
        softmax = isinstance(loss, SoftmaxLoss)
        predictions = near_objects(anchors.boxes, classes, softmax=softmax, passing=passing, threshold=used)
        limits = torch.tensor([detector.image_size], dtype=torch.float32)
        return lambda: step(predictions, anchors, None, limits).to_list()

    return make


def of_zoo(name: str) -> Callable[[], Action | None]:
    """From the predictions of a trained model for photographs to its detections."""

    def make() -> Action | None:
        import torch

        import singleshot as ss
        from singleshot.data.images import read_image

        model = HERE.parents[1] / "zoo" / f"{name}.safetensors"
        folder = Path(os.environ.get("SINGLESHOT_SHARED", HERE.parents[2] / "shared" / "data")) / name / "JPEGImages"
        files = sorted(folder.glob("*.jpg"))[:6]
        if not files:
            return None
        detector = ss.load(model)
        with torch.no_grad():
            pictures = [torch.from_numpy(read_image(file).copy()).movedim(-1, 0) for file in files]
            raws = [detector.raw([picture]) for picture in pictures]

        def run() -> None:
            for raw in raws:
                detector.detections(raw)

        run.parts = len(raws)  # type: ignore[attr-defined]
        return run

    return make


def boxes_to_suppress(number: int, classes: int, crowds: bool) -> tuple[Any, Any, Any]:
    """Boxes of random size all over a picture, or around 50 objects; scores; labels."""
    import torch

    generator = torch.Generator().manual_seed(0)
    low = torch.rand(number, 2, generator=generator) * torch.tensor([1333.0, 800.0])
    size = 20 + torch.rand(number, 2, generator=generator) * 200
    if crowds:
        owner = torch.randint(50, (number,), generator=generator)
        low = low[owner] + torch.randn(number, 2, generator=generator) * 6
        size = size[owner] * (1 + 0.1 * torch.randn(number, 2, generator=generator)).clamp(min=0.1)
    scores = torch.rand(number, generator=generator)
    return torch.cat([low, low + size], 1), scores, torch.randint(classes, (number,), generator=generator)


def of_suppression(number: int, classes: int, crowds: bool = False) -> Callable[[], Action]:
    """Greedy suppression of candidates that are not sorted."""

    def make() -> Action:
        boxes, scores, labels = boxes_to_suppress(number, classes, crowds)
        try:
            from singleshot.ops.nms import nms
        except ImportError:  # the process of torchvision
            from torchvision.ops import batched_nms

            return lambda: batched_nms(boxes, scores, labels, 0.5)
        return lambda: nms(boxes, scores, labels, 0.5)

    return make


def of_drawing() -> Action:
    """100 boxes of 20 classes, with names and scores, on 640x480."""
    import numpy as np

    from singleshot.inference.draw import draw
    from singleshot.prediction import Prediction

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (480, 640, 3), np.uint8)
    low = rng.random((100, 2)) * [560, 400]
    boxes = np.concatenate([low, low + 20 + rng.random((100, 2)) * 120], 1)
    names = tuple(f"class number {k}" for k in range(20))
    labels = rng.integers(0, 20, 100)
    prediction = Prediction(boxes, np.sort(rng.random(100))[::-1], labels, names, tuple(range(20)), (480, 640))
    return lambda: draw(picture, prediction)


def of_models() -> Action:
    """`singleshot models`, with the start of Python and all imports, in a process of its own."""
    return lambda: subprocess.run([sys.executable, "-m", "singleshot", "models"], check=True, capture_output=True)


ROWS: dict[str, Row] = {
    "zoo/chess": Row(of_zoo("chess"), 4),
    "zoo/bccd with voting": Row(of_zoo("bccd"), 3),
    "ssd300 typical: 20 classes, 1.5 % of the scores pass": Row(of_detector("ssd300_vgg16", 20, 0.015), 1.7),
    "ssd300 worst: half of the scores pass": Row(of_detector("ssd300_vgg16", 20, 0.5), 6),
    "retinanet 800: 80 classes, 3,900 scores pass": Row(of_detector("retinanet_r50", 80, 3e-4), 8),
    "ssd300 mobilenetv2: 1,000 classes, 0.1 % pass": Row(of_detector("ssd300_mobilenetv2", 1000, 0.001), 60),
    "ssd300 mobilenetv2: 1,203 classes, 0.1 % pass": Row(of_detector("ssd300_mobilenetv2", 1203, 0.001)),
    "ssd300 mobilenetv2: 1,203 sigmoids, 0.1 % pass": Row(
        of_detector("ssd300_mobilenetv2", 1203, 0.001, classification="focal")
    ),
    "suppression: 20,000 of 80 classes": Row(of_suppression(20_000, 80)),
    "suppression: 50,000 of 80 classes": Row(of_suppression(50_000, 80)),
    "suppression: 20,000 of one class": Row(of_suppression(20_000, 1)),
    "suppression: 50,000 of one class": Row(of_suppression(50_000, 1)),
    "suppression: 50,000 of 80 classes in crowds": Row(of_suppression(50_000, 80, crowds=True)),
    "suppression: 50,000 of one class in crowds": Row(of_suppression(50_000, 1, crowds=True)),
    "drawing 100 boxes on 640x480": Row(of_drawing, 5),
    "singleshot models": Row(of_models, 1500),
}


def seconds(row: str, actions: dict[str, Action | None], least: float = 0.15) -> float | None:
    """Processor time of one run of a row, with that of the processes it starts: the mean of some runs in sequence."""
    if row not in actions:
        actions[row] = ROWS[row].make()
        with suppress(TypeError):
            actions[row]()  # type: ignore[misc]
    action = actions[row]
    if action is None:
        return None
    start, runs = time.perf_counter(), 0
    before = used()
    while not runs or (time.perf_counter() - start < least and runs < 50):
        action()
        runs += 1
    return (used() - before) / runs / getattr(action, "parts", 1)


def used() -> float:
    """Processor time of this process and of those that it has started and waited for."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def serve() -> int:
    """The process of one side: reads the names of rows, answers with seconds."""
    import torch

    torch.set_num_threads(1)
    actions: dict[str, Action | None] = {}
    for line in sys.stdin:
        try:
            answer: object = seconds(line.strip(), actions)
        except (ImportError, TypeError, AttributeError, ValueError) as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)
    return 0


class Side:
    """One version of the package, or torchvision, in a process of its own."""

    def __init__(self, name: str, python: str, source: Path | None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "" if source is None else str(source)}
        self.name = name
        self.process = subprocess.Popen(
            [python, str(HERE), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def seconds(self, row: str) -> float | None:
        """One measurement of a row; None if this side does not have it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(row + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or "null")
        return answer if isinstance(answer, float) else None


def measure(sides: list[Side], row: str, rounds: int) -> dict[str, float]:
    """Side -> median milliseconds, and `NAME ratio`, how much longer that side takes than the first."""
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else sides[::-1]:
            if not number or times[side.name]:
                took = side.seconds(row)
                if took is not None:
                    times[side.name].append(1000 * took)
    line = {name: round(statistics.median(own), 3) for name, own in times.items() if own}
    ours = times[sides[0].name]
    for side in sides[1:]:
        if ours and times[side.name]:
            pairs = zip(ours, times[side.name], strict=True)
            line[f"{side.name} ratio"] = round(statistics.median(b / a for a, b in pairs), 2)
    return line


def main(words: list[str] | None = None) -> int:
    """Run the command line: measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="GIT_REF", help="the package at this commit is measured too")
    parser.add_argument("--torchvision", metavar="PYTHON", help="of an environment that has torchvision")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows that contain these words")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.serve:
        return serve()
    rows = [row for row in ROWS if options.only in row]
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side("now", sys.executable, HERE.parents[1] / "src")]
        git = ["git", "-C", str(HERE.parents[1]), "worktree"]
        old = Path(folder) / "before"
        if options.against:
            subprocess.run([*git, "add", "--detach", "-f", str(old), options.against], check=True, capture_output=True)
            sides.append(Side("before", sys.executable, old / "src"))
        if options.torchvision:
            sides.append(Side("torchvision", options.torchvision, None))
        try:
            found = {row: told(row, measure(sides, row, options.rounds), quiet=options.json) for row in rows}
        finally:
            for side in sides:
                side.process.kill()
                side.process.wait()
            if options.against:
                subprocess.run([*git, "remove", "--force", str(old)], check=True)
    if options.json:
        print(json.dumps(found))
    return 0


def told(row: str, line: dict[str, float], *, quiet: bool) -> dict[str, float]:
    """Print a row as soon as it is measured."""
    if line and not quiet:
        numbers = [f"{name} {value:g}{'x' if name.endswith('ratio') else ' ms'}" for name, value in line.items()]
        target = ROWS[row].target
        print(f"{row}: {', '.join(numbers)}{'' if target is None else f' (target {target:g} ms)'}", flush=True)
    return line


if __name__ == "__main__":
    raise SystemExit(main())
