"""What each backbone costs a processor: SSD on it, time of an image and of a training step, parameters.

    python benchmarks/backbone_speed.py [NAME ...] [--size 320] [--rounds 15] [--threads 1] [--batch 4]

All weights are random, so the threshold is set so high that no box passes: the time is that of the network and of the
scores. A training step is forward, loss and backward with fixed statistics of the norms, as in the recipe `finetune`,
without the optimiser. With one thread the time is the processor's own time for this program, which other programs on
the machine change little; with more threads it is the clock's. The detectors take turns in a new random order in each
round, so that a disturbance affects all of them; the fastest of all rounds is the closest to an idle machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from recorded.machine import commit, machine
from speed_accuracy import interleaved, summary

import singleshot as ss
from singleshot import backbones
from singleshot.postprocess import vary

BACKBONES = (
    "mobilenetv2",
    "mobilenetv3_large",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_b0",
    "resnet18",
    "resnet18d",
    "resnet50",
)


def main(words: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", default=BACKBONES, metavar="NAME", help=f"backbones: {', '.join(BACKBONES)}"
    )
    parser.add_argument("--size", type=int, default=320, help="pixels of the input")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4, help="images in a training step")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    detectors = [ss.ssd(num_classes=3, backbone=name, image_size=options.size, norm="eval") for name in options.names]
    image = torch.randint(0, 256, (3, 480, 640), dtype=torch.uint8)
    targets = [{"boxes": torch.tensor([[100.0, 80.0, 300.0, 260.0]]), "labels": torch.tensor([1])}] * options.batch
    for detector in detectors:
        detector.postprocess = vary(detector.postprocess, "threshold", 1.0)

    def found(detector: ss.Detector) -> Callable[[], object]:
        detector.eval()
        return torch.inference_mode()(lambda: detector([image]))

    def learnt(detector: ss.Detector) -> Callable[[], object]:
        def step() -> None:
            detector.train()
            detector.zero_grad()
            sum(detector([image] * options.batch, targets).values()).backward()
            detector.eval()

        return step

    clock = time.process_time if options.threads == 1 else time.perf_counter
    times = interleaved([found(detector) for detector in detectors], rounds=options.rounds, clock=clock)
    steps = max(2, options.rounds // 4)
    trained = interleaved([learnt(detector) for detector in detectors], rounds=steps, warm_up=1, clock=clock)
    where, code = machine(), commit()
    print(
        f"{where['cpu']}, {options.threads} of {where['cores']} cores, float32, torch {where['torch']}, "
        f"{options.size} pixels, {options.rounds} rounds, commit {code['commit']}"
    )
    print("\n| backbone | parameters of SSD | of the trunk | ms: fastest | median | training, ms an image |")
    print("|---|---|---|---|---|---|")
    for name, detector, taken, step in zip(options.names, detectors, times, trained, strict=True):
        whole = sum(value.numel() for value in detector.parameters())
        with torch.device("meta"):
            trunk = sum(value.numel() for value in backbones.build(name).parameters())
        print(
            f"| `{name}` | {whole:,} | {trunk:,} | {min(taken):.0f} | {summary(taken)['median_ms']:.0f} "
            f"| {min(step) / options.batch:.0f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
