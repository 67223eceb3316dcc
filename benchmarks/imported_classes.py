"""AP per class of imported weights on a dataset whose classes have other names: here Open Images' names on Pascal VOC.

    python benchmarks/imported_classes.py FILE LABELS DATA [--split val] [--threshold 0.02] [--nms 0.5] [--batch-size 8]

FILE is anything that `import_weights` reads, LABELS its list of classes. Only the classes that both know are measured;
`PAIRS` names them. Detections of all other classes are dropped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from singleshot.data.open import open_dataset
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.voc import voc_metrics
from singleshot.weights.importers import import_weights

PAIRS = {
    "bicycle": "Bicycle", "bottle": "Bottle", "car": "Car", "cat": "Cat", "chair": "Chair", "cow": "Cattle",
    "diningtable": "Table", "dog": "Dog", "person": "Person", "tvmonitor": "Computer monitor",
}  # fmt: skip


def main() -> None:
    """Import, detect, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "labels", "data"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--threshold", type=float, default=0.02)
    parser.add_argument("--nms", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=8)
    given = parser.parse_args()
    detector = import_weights(
        given.weights, class_names=given.labels.read_text().splitlines(), threshold=given.threshold, nms=given.nms
    )
    dataset = open_dataset(given.data, split=given.split)
    theirs = {name: detector.class_names.index(other) for name, other in PAIRS.items()}
    label = np.full(len(detector.class_names), -1)
    for name, index in theirs.items():
        label[index] = dataset.class_names.index(name)
    found = []
    for one in detect_dataset(detector, dataset, batch_size=given.batch_size):
        kept = label[one.labels] >= 0
        found.append(ImageDetections(one.boxes[kept], one.scores[kept], label[one.labels[kept]]))
    metrics = voc_metrics(dataset, found)
    for name in sorted(PAIRS, key=lambda name: -(metrics.classes[dataset.class_names.index(name)].voc07 or 0)):
        one = metrics.classes[dataset.class_names.index(name)]
        print(f"{name:12s} {100 * (one.voc07 or 0):5.1f}  ({one.boxes} objects, {PAIRS[name]})")


if __name__ == "__main__":
    main()
