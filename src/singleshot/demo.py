"""The whole tour on a generated dataset: draw it, train a small SSD, measure it, draw what it finds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from singleshot.data.dataset import Dataset
from singleshot.data.images import read_image
from singleshot.data.open import open_dataset
from singleshot.data.shapes import write_shapes
from singleshot.detectors.detector import Detector
from singleshot.devices import find_device
from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import Metrics, evaluate
from singleshot.files import write_atomically
from singleshot.inference import samples
from singleshot.inference.draw import draw
from singleshot.paths import to_path
from singleshot.prediction import Prediction
from singleshot.terminal import say
from singleshot.training import train
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import Augmentation, Compute, Data, Ema, Log, Optimizer, Recipe, Schedule
from singleshot.training.setup import choose_precision
from singleshot.weights import checkpoint

TRAIN, VAL = 600, 150  # images
SHEET = 16  # pictures on the contact sheet
AT_A_TIME = 8  # images to measure on, between two looks at the clock
THRESHOLD = 0.4  # lowest score that is drawn there

RECIPE = Recipe(
    name="demo",
    builder="ssd",
    # Objects have sides of 16 to 160 pixels in 256, so 10 to 100 here. The map at stride 4 sees the smallest ones.
    arguments={
        "backbone": "resnet18",
        "backbone_options": {"sources": [2, 3, 4]},
        "image_size": 160,
        "box_sizes": [12, 20, 34, 56, 80, 110, 150],
    },
    batch_size=16,
    data=Data(split="train", val_split="none"),  # measured once, at the end
    # Shapes have no up and down, and their colours already vary enough.
    augmentation=Augmentation(
        photometric=False, expand=False, crop=False, jitter=(0.7, 1.5), vertical_flip=True, quarter_turns=True
    ),
    optimizer=Optimizer(
        name="adamw",
        lr=2e-3,
        base_batch_size=0,
        weight_decay=0.02,
        norm_decay=False,
        bias_lr_factor=1.0,
        clip_norm=10.0,
    ),
    schedule=Schedule(minutes=2.0, kind="cosine", warmup_steps=40, final_factor=0.01),
    ema=Ema(decay=0.98),
    compute=Compute(channels_last=True),
    log=Log(every=20),
)
"""The demo's settings: chosen for three minutes on two cores, not for the best result."""

TRAINED = 120.0
"""Seconds from the start to the end of the training, on any machine: a slow one makes fewer steps. The last minute of
the three is for measuring and drawing, which takes some seconds on two quiet cores, and more beside other work."""

MEASURED = 155.0
"""Seconds from the start to the end of the detection. What was not looked at by then is left out, and that is said."""

FEW_STEPS = 100
"""With fewer steps the detector finds little, and the demo says why."""

LEAST = 20.0
"""Seconds to train, also where the drawing of the data has taken nearly all of the time."""


def run_demo(
    out: str | Path | None = None,
    seed: int = 0,
    *,
    images: tuple[int, int] = (TRAIN, VAL),
    steps: int | None = None,
) -> dict[str, Any]:
    """Draw the dataset, train on it, measure, and draw the detections. Progress goes to stderr.

    Args:
        out: a folder that is new or holds a dataset of this seed; default: the next free `runs/demo-<n>`. `data` (VOC
            and COCO files), `run` (the run folder), `findings.png` and `metrics.json` are written into it.
        seed: of the pictures and the training.
        images: how many images to train on, and how many to measure on.
        steps: of the training; default: as many as the machine makes until two minutes are over. With a number the demo
            is repeatable.

    Returns:
        "voc10" {"mAP"} and "coco" {"AP"} on the validation images; "seconds", the whole time; "run", the run folder;
        "text", the table and where the files are; "sheet" and "data", paths.

    Raises:
        UserError: there is a run in `out` already, or `out` cannot be written.
    """
    start = time.monotonic()
    if seed < 0:
        raise UserError(f"seed {seed}: expected a whole number, 0 or more.")
    folder = RunFolder.create(None, "demo").path if out is None else to_path(out)
    run_folder = folder / "run"
    for path in (run_folder, folder / "findings.png", folder / "metrics.json"):
        if path.exists():
            raise UserError(f"{path} exists, and the demo overwrites nothing. Choose another --out, or leave it out.")

    say(f"drawing {sum(images)} images into {folder / 'data'}")
    data = write_shapes(folder / "data", train=images[0], val=images[1], seed=seed)
    minutes = max(LEAST, TRAINED - (time.monotonic() - start)) / 60
    schedule = replace(RECIPE.schedule, steps=steps, minutes=None if steps else minutes)
    with threads(torch.get_num_threads() if steps else best_threads(_timed)):
        result = train(replace(RECIPE, schedule=schedule, seed=seed), data=data / "voc", out=run_folder)

        device = find_device("auto")
        detector = checkpoint.load(result.last, device=device)
        detector.precision = choose_precision("auto", device)
        val = open_dataset(data / "voc", split="val", class_names=detector.class_names)
        say(f"measuring on {len(val)} images")
        detections = detect_until(start + MEASURED, detector, val) if steps is None else detect_dataset(detector, val)
        if len(detections) < len(val):
            say(f"the machine is busy: measured on {len(detections)} of them only, to end in time")
            val = replace(val, records=val.records[: len(detections)])
        metrics = evaluate(val, detections)
        made = checkpoint.read_metadata(result.last)["metrics"]["step"]
        if steps is None and made < FEW_STEPS:
            say(f"the machine is busy: the time was enough for {made} steps only, so the detector finds little")

        sheet = folder / "findings.png"
        samples.write_sheet(_drawn_findings(detector, val, detections), sheet, cell=256)
    _write(folder / "metrics.json", json.dumps(metrics.to_json(), indent=2).encode())
    numbers = metrics.to_json()
    seconds = round(time.monotonic() - start, 1)
    return {
        "voc10": {"mAP": numbers["voc10"]["mAP"]},
        "coco": {"AP": numbers["coco"]["AP"]},
        "seconds": seconds,
        "run": str(run_folder),
        "text": _text(metrics, folder, result.last, seconds),
        "sheet": str(sheet),
        "data": str(data),
    }


def detect_until(end: float, detector: Detector, val: Dataset) -> list[ImageDetections]:
    """What is found in the first images: in as many as can be looked at until `end`, and in some at least."""
    found: list[ImageDetections] = []
    begin = time.monotonic()
    while len(found) < len(val):
        if found and begin + (time.monotonic() - begin) * (len(found) + AT_A_TIME) / len(found) > end:
            break
        found += detect_dataset(detector, replace(val, records=val.records[len(found) : len(found) + AT_A_TIME]))
    return found


def best_threads(timed: Callable[[int], float]) -> int:
    """All threads, or one if one is faster: beside other work, threads that wait for one another lose far more.

    `timed` gives the seconds of some work with a number of threads.
    """
    usual = torch.get_num_threads()
    if usual == 1:
        return 1
    alone, together = (sum(times) for times in zip(*((timed(1), timed(usual)) for _ in range(3)), strict=True))
    return 1 if alone < together else usual


def _timed(number: int) -> float:
    """Seconds of some convolutions such as the detector has."""
    images, kernels = torch.ones(RECIPE.batch_size, 64, 40, 40), torch.ones(64, 64, 3, 3)
    with threads(number), torch.no_grad():
        begin = time.monotonic()
        for _ in range(5):
            torch.nn.functional.conv2d(images, kernels, padding=1).relu_()
        return time.monotonic() - begin


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside, PyTorch computes with this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drawn_findings(detector: Detector, val: Dataset, detections: list[ImageDetections]) -> samples.Pictures:
    """Evenly spaced images with the detections drawn into them, and a caption for each."""
    chosen = range(0, len(val), max(1, len(val) // SHEET))[:SHEET]
    pictures = []
    for index in chosen:
        record, found = val.records[index], detections[index]
        image = read_image(record.path)
        prediction = Prediction(
            boxes=found.boxes,
            scores=found.scores,
            labels=found.labels,
            class_names=val.class_names,
            category_ids=detector.category_ids,
            size=(image.shape[0], image.shape[1]),
            path=str(record.path),
        )
        count = int((prediction.scores_array >= THRESHOLD).sum())
        caption = f"{record.name}: {count} found, {len(record.labels)} there"
        pictures.append((draw(image, prediction, threshold=THRESHOLD), caption))
    return pictures


def _text(metrics: Metrics, folder: Path, model: Path, seconds: float) -> str:
    picture = folder / "data" / "voc" / "JPEGImages" / "val_00000.jpg"
    return "\n".join(
        [
            metrics.table(),
            "",
            f"{seconds:.0f} seconds in total. The files:",
            f"  findings  {folder / 'findings.png'} (scores of {THRESHOLD} and more)",
            f"  detector  {model}",
            f"  dataset   {folder / 'data' / 'voc'}, and the same as COCO in {folder / 'data' / 'coco'}",
            f"  numbers   {folder / 'metrics.json'}",
            f"Next: singleshot detect {model} {picture} --out found",
        ]
    )


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}).") from error
