"""The training loader: milliseconds per image of each part, and images per second with workers.

    python benchmarks/loader.py [DATA] [--split NAME] [--longest 500] [--size 300] [--images 256] [--workers 0 1 2]
                                [--rounds 3] [--json]

DATA is any dataset folder. Without it, generated shapes are drawn into a temporary folder. The script measures reading
(decoding) alone, SSD's augmentation in its fast form and step by step as in the authors' code, and the whole loader.
Times are medians over single images, in one thread. The loader's rate is measured after its first ten batches; it is
the median of the rounds. "a core" is the rate without workers by the time of the processor, which other work on the
machine disturbs less. `--longest` first resizes 128 images to this longest side, and saves them as JPEG of quality 90.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from singleshot.data.dataset import Dataset
from singleshot.data.images import read_image
from singleshot.data.loader import train_loader
from singleshot.data.open import open_dataset
from singleshot.data.shapes import write_shapes
from singleshot.data.transforms import Sample, SSDAugmentation, Transform, ssd_augmentation

MEAN = (123.0, 117.0, 104.0)
BATCH = 16


def milliseconds(action: Callable[[int], Any], count: int) -> float:
    """Median wall time of action(0), action(1), ..."""
    times = []
    for i in range(count):
        start = time.perf_counter()
        action(i)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def measure_parts(dataset: Dataset, size: int, count: int) -> dict[str, float]:
    """Reading and augmentation of single images."""
    cv2.setNumThreads(1)
    records = [dataset.records[i % len(dataset)] for i in range(count)]
    samples = [
        Sample(read_image(record.path), record.boxes.astype(np.float32), record.labels, record.crowd)
        for record in records[:64]
    ]
    fast = ssd_augmentation((size, size), mean=MEAN).transforms[-1]
    assert isinstance(fast, SSDAugmentation)

    def augment(transform: Transform) -> Callable[[int], Sample]:
        return lambda i: transform(samples[i % len(samples)], np.random.default_rng(i))

    return {
        "read": milliseconds(lambda i: read_image(records[i].path), count),
        "augment, fast": milliseconds(augment(fast), count),
        "augment, step by step": milliseconds(augment(fast.exact()), count),
    }


def resized(dataset: Dataset, longest: int, folder: Path) -> Dataset:
    """Some images with this longest side, as JPEG files."""
    records = []
    for record in dataset.records[:128]:
        image = read_image(record.path)
        scale = longest / max(image.shape[:2])
        path = folder / f"{len(records)}.jpg"
        Image.fromarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)).save(
            path, quality=90
        )
        records.append(replace(record, path=path, boxes=record.boxes * scale))
    return replace(dataset, records=tuple(records))


def rate(
    dataset: Dataset, size: int, workers: int, count: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Images per second of the loader."""
    transform = ssd_augmentation((size, size), mean=MEAN)
    batches = iter(train_loader(dataset, transform, batch_size=BATCH, seed=0, workers=workers))
    for _ in islice(batches, 10):
        pass
    start = clock()
    steps = max(1, count // BATCH)
    for _ in islice(batches, steps):
        pass
    return steps * BATCH / (clock() - start)


def main() -> None:
    """Print one line per part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--longest", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or write_shapes(Path(temporary) / "shapes", train=128, val=1) / "voc"
        dataset = open_dataset(data, split=options.split)
        if options.longest:
            dataset = resized(dataset, options.longest, Path(temporary))
        parts = measure_parts(dataset, options.size, options.images)
        times: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            core = rate(dataset, options.size, 0, options.images, time.process_time)
            times.setdefault("a core", []).append(core)
            for workers in options.workers:
                found = rate(dataset, options.size, workers, options.images)
                times.setdefault(f"workers: {workers}", []).append(found)
        rates = {name: statistics.median(found) for name, found in times.items()}
    if options.json:
        print(json.dumps({"milliseconds": parts, "images_per_second": rates}))
        return
    for name, value in parts.items():
        print(f"{name:24} {value:8.2f} ms per image")
    for name, value in rates.items():
        print(f"{'loader, ' + name:24} {value:8.1f} images/s")


if __name__ == "__main__":
    main()
