"""Seconds for the greedy suppression of a batch's candidates: in chunks (as in the package), and all pairs at once.

    python benchmarks/suppression.py [--images 8] [--classes 20] [--candidates 400 1000] [--rounds 5] [--json]

Candidates are boxes around a few objects of each image, sorted by score. As in a trained detector with a threshold of
0.01, one class of an image has the full number of candidates, and the others have fewer and fewer. Both methods give
the same survivors (checked in every round). The script prints the medians over the rounds and of the ratios within the
rounds, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from singleshot.ops import nms
from singleshot.ops.boxes import pairwise_iou


def candidates(images: int, classes: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes [images * classes, number, 4], and whether each of them exists, [images * classes, number] bool."""
    generator = torch.Generator().manual_seed(seed)
    rows = images * classes
    objects = torch.rand(rows, 10, 4, generator=generator) * torch.tensor([200.0, 200.0, 100.0, 100.0])
    near = objects.gather(1, torch.randint(10, (rows, number, 1), generator=generator).expand(-1, -1, 4))
    near = near + torch.randn(rows, number, 4, generator=generator) * 5
    boxes = torch.cat([near[..., :2], near[..., :2] + near[..., 2:].abs() + 10], -1)
    counts = number * 0.8 ** torch.arange(classes)
    return boxes, torch.arange(number) < counts.repeat(images)[:, None]


def at_once(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """The same with the overlaps of all pairs of a row."""
    step = max(1, (1 << 24) // boxes.shape[1] ** 2)
    pieces = zip(boxes.split(step), valid.split(step), strict=True)
    return torch.cat(
        [nms.survivors((pairwise_iou(own, own) > iou_threshold).triu(1).float(), there) for own, there in pieces]
    )


def measure(images: int, classes: int, number: int, rounds: int) -> dict[str, float]:
    """Median seconds of both methods, and their median ratio."""
    chunks, whole = [], []
    for seed in range(rounds):
        boxes, valid = candidates(images, classes, number, seed)
        start = time.perf_counter()
        ours = nms.nms_sorted(boxes, valid, 0.45)
        middle = time.perf_counter()
        theirs = at_once(boxes, valid, 0.45)
        whole.append(time.perf_counter() - middle)
        chunks.append(middle - start)
        if not torch.equal(ours, theirs):
            raise SystemExit(f"the survivors of {number} candidates differ (seed {seed})")
    ratio = statistics.median(b / a for a, b in zip(chunks, whole, strict=True))
    return {"chunks": statistics.median(chunks), "at_once": statistics.median(whole), "ratio": ratio}


def main(words: list[str] | None = None) -> int:
    """Run the command line: measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--candidates", type=int, nargs="+", default=[400, 1000], help="of each class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    found = {n: measure(options.images, options.classes, n, options.rounds) for n in options.candidates}
    if options.json:
        print(json.dumps(found))
        return 0
    for number, line in found.items():
        took = f"{1000 * line['chunks']:.0f} ms in chunks, {1000 * line['at_once']:.0f} ms at once"
        print(f"{options.images} x {options.classes} x {number} candidates: {took}, ratio {line['ratio']:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
