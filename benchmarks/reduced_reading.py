"""Large JPEG files decoded whole and decoded as small as the network sees them: time, and AP of the same detector.

    python benchmarks/reduced_reading.py MODEL DATA [--split val] [--scale 4] [--images 60] [--rounds 5] [--json]

The images of a dataset are enlarged and written as JPEG in a temporary folder. The detector then detects in each file
in both ways, which take turns; the times are the medians over the images of the best of the rounds, on one thread,
beside those of reading alone. `evaluate` measures both ways on these images.

Measured on val sets enlarged fourfold, decoded at 1/4 (58 and 87 images, processor time on a busy EPYC without VNNI):
zoo/chess at 1664x1664 is read in 4.8 in place of 9.1 ms and detected in 78 in place of 89 ms, AP 71.57 in place of
70.77; zoo/bccd at 2560x1920 in 6.8 in place of 14.2 and 79 in place of 95 ms, AP 59.92 in place of 60.09.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import singleshot as ss
from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.images import read_image, read_reduced
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.metrics import evaluate


def enlarged(dataset: Dataset, scale: int, number: int, folder: Path) -> Dataset:
    """The first images of a dataset, `scale` times as large, with their objects."""
    records = []
    for place, record in enumerate(dataset.records[:number]):
        picture = Image.fromarray(read_image(record.path))
        path = folder / f"{place}.jpg"
        size = picture.width * scale, picture.height * scale
        picture.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        records.append(_scaled(record, path, scale))
    return replace(dataset, records=tuple(records))


def _scaled(record: ImageRecord, path: Path, scale: int) -> ImageRecord:
    return replace(
        record,
        path=path,
        size=(record.size[0] * scale, record.size[1] * scale),
        boxes=record.boxes * scale,
        areas=record.areas * scale**2,
        xywh=None if record.xywh is None else record.xywh * scale,
    )


def seconds(ways: dict[str, Callable[[Path], Any]], paths: list[Path], rounds: int) -> dict[str, float]:
    """The median over the files of the best processor time of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for path in paths:
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.process_time()
                way(path)
                best[name] = min(best[name], time.process_time() - start)
        for name, one in best.items():
            taken[name].append(one)
    return {name: statistics.median(all_) for name, all_ in taken.items()}


def _ap(dataset: Dataset, detector: Any) -> float:
    """COCO's AP, in percent."""
    return 100 * evaluate(dataset, detect_dataset(detector, dataset)).coco.numbers["AP"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = ss.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        dataset = enlarged(
            ss.open_dataset(options.data, split=options.split, class_names=detector.class_names),
            options.scale,
            options.images,
            Path(folder),
        )
        ways: dict[str, Callable[[Path], Any]] = {
            "reading, whole": read_image,
            "reading, reduced": lambda path: read_reduced(path, detector.seen_size),
            "detecting, whole": lambda path: detector.predict(read_image(path)),
            "detecting, reduced": lambda path: detector.predict(path),
        }
        paths = [record.path for record in dataset.records][:10]
        ms = {name: 1e3 * value for name, value in seconds(ways, paths, options.rounds).items()}
        same = detector.evaluator()  # a function does not say how it sees images, so they are read as a whole
        whole = _ap(dataset, lambda images: same(images))
        reduced = _ap(dataset, detector)
        size = dataset.records[0].size
        found = {
            "size": size,
            "factor": read_reduced(paths[0], detector.seen_size)[1].factor,
            "ms": ms,
            "AP": {"whole": whole, "reduced": reduced},
        }
    if options.json:
        print(json.dumps(found))
        return
    print(f"{len(dataset)} files of {size[1]}x{size[0]}, decoded at 1/{found['factor']} for {detector.image_size}")
    for name, value in ms.items():
        print(f"{name:20s} {value:7.1f} ms")
    print(f"AP whole {whole:.2f}, reduced {reduced:.2f}")


if __name__ == "__main__":
    main()
