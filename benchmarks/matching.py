"""Milliseconds to match the objects of an image with the anchors of a RetinaNet at 800x1344.

    python benchmarks/matching.py [--objects 1 10 100 1000 5000] [--rounds 5] [--dense] [--json]

The anchors are RetinaNet's (201,600), the objects have random places, and sides from 8 to 400 pixels. The time is the
processor's, the median of the rounds. `--dense` also measures the comparison of all pairs (what a GPU computes), for up
to 1,000 objects, and checks that both match the same.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import time

import torch

from singleshot.anchors import AnchorGenerator, octave_sizes
from singleshot.matchers import IoUMatcher
from singleshot.memory import keep_freed_memory
from singleshot.structures import Anchors, Targets

HEIGHT, WIDTH = 800, 1344
MATCHER = IoUMatcher(positive=0.5, negative=0.4, low_quality="all")
DENSE_LIMIT = 1000


class Dense(IoUMatcher):
    """The comparison of all pairs."""

    _near = IoUMatcher._dense


def anchors() -> Anchors:
    """RetinaNet's anchors for an image of 800x1344."""
    strides = (8, 16, 32, 64, 128)
    make = AnchorGenerator(strides, octave_sizes([4.0 * stride for stride in strides], 3))
    return make([(math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride)) for stride in strides], (HEIGHT, WIDTH))


def objects(count: int, seed: int = 0) -> Targets:
    """One image with `count` objects: the logarithms of their sides are uniform."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    half = torch.exp(torch.rand(count, 2, generator=generator) * math.log(50)) * 4
    low, high = (centre - half).clamp(min=0), torch.minimum(centre + half, torch.tensor([WIDTH, HEIGHT]))
    return Targets.from_list([{"boxes": torch.cat([low, high], 1), "labels": torch.zeros(count, dtype=torch.int64)}])


def milliseconds(matcher: IoUMatcher, base: Anchors, targets: Targets) -> float:
    """Of the processor, for one matching."""
    start = time.process_time()
    matcher(base, targets)
    return 1e3 * (time.process_time() - start)


def measure(counts: list[int], rounds: int, *, dense: bool = False) -> dict[str, dict[str, float]]:
    """Number of objects -> {"near": ms, "dense": ms, "MiB": by how much the process has grown}."""
    keep_freed_memory(torch.device("cpu"))  # as a training run does
    base = anchors()
    MATCHER(base, objects(1))  # sorts the anchors: once for an image size
    slow = Dense(MATCHER.positive, MATCHER.negative, MATCHER.low_quality)
    found: dict[str, dict[str, float]] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in counts:
        targets = objects(count)
        row = {"near": statistics.median(milliseconds(MATCHER, base, targets) for _ in range(rounds))}
        row["MiB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        found[str(count)] = row
    for count in (count for count in counts if dense and count <= DENSE_LIMIT):
        targets = objects(count)
        times = [milliseconds(slow, base, targets) for _ in range(rounds if count <= 100 else 1)]
        found[str(count)]["dense"] = statistics.median(times)
        one, other = MATCHER(base, targets), slow(base, targets)
        same = all(torch.equal(getattr(one, part), getattr(other, part)) for part in ("boxes", "positive", "counted"))
        assert same, f"{count} objects are matched differently"
    return found


def main() -> None:
    """Print one line for each number of objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 10, 100, 1000, 5000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.objects, options.rounds, dense=options.dense)
    if options.json:
        print(json.dumps(found))
        return
    for count, row in found.items():
        dense = f"   all pairs {row['dense']:9.1f} ms" if "dense" in row else ""
        print(f"{count:>6} objects {row['near']:9.1f} ms   +{row['MiB']:.0f} MiB{dense}")


if __name__ == "__main__":
    main()
