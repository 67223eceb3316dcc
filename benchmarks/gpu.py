"""A GPU's training steps and inference: images per second, share of its bf16 peak, and how often the host waits.

    python benchmarks/gpu.py [--device cuda] [--models ssd300_vgg16 retinanet_resnet50] [--rounds 5] [--steps 10]
                             [--tiny] [--json]

Ours are in bf16, channels last and compiled. torchvision's detectors stand beside them in the same run, in bf16 by
autocast and as they are, where this Python can import torchvision. The targets are 2 times its training steps and 3
times its inference. The peak is that of a product of two matrices, measured here. `waits` are the places in one step
where the host waits for the device, from a profile: there should be none. `--tiny --device cpu` only shows that the
script runs: small images, one of them, nothing compiled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from training_peers import CLASSES, MODELS, batch_of, torchvision_detector

from singleshot.detectors.registry import find_builder
from singleshot.training.optimizer import create_optimizer
from singleshot.training.recipe import Optimizer

WAITS = ("aten::_local_scalar_dense", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
Action = Callable[[], Any]


def ours(name: str, size: int, count: int, device: torch.device, *, compiled: bool) -> tuple[Action, Action]:
    """A training step and an inference of this package."""
    model = MODELS[name]
    detector = find_builder(model["builder"])(num_classes=CLASSES, image_size=size, **model["arguments"])
    detector = detector.to(device, memory_format=torch.channels_last)
    detector.precision = "bf16"
    if compiled:
        detector.network = torch.compile(detector.network)
    optimizer = create_optimizer(detector, Optimizer(lr=1e-6))
    images, targets = batch_of(size, count)  # targets stay on the CPU, as the loader gives them
    images = [image.to(device) for image in images]

    def step() -> None:
        detector.train()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(detector(images, targets).values())).sum().backward()
        optimizer.step()

    @torch.inference_mode()
    def detect() -> Any:
        detector.eval()
        return detector(images)

    return step, detect


def theirs(name: str, size: int, count: int, device: torch.device) -> tuple[Action, Action]:
    """A training step and an inference of torchvision."""
    detector = torchvision_detector(name, size).to(device)
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=5e-4)
    images, targets = batch_of(size, count)
    images = [image.to(device) / 255 for image in images]
    labelled = [{"boxes": one["boxes"].to(device), "labels": one["labels"].to(device) + 1} for one in targets]

    def step() -> None:
        detector.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            losses = detector(images, labelled)
        sum(losses.values()).backward()
        optimizer.step()

    @torch.inference_mode()
    def detect() -> Any:
        detector.eval()
        with torch.autocast(device.type, torch.bfloat16):
            return detector(images)

    return step, detect


def finish(device: torch.device) -> None:
    """Wait until the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(action: Action, steps: int, device: torch.device) -> float:
    """Of one action, when `steps` follow each other."""
    finish(device)
    start = time.perf_counter()
    for _ in range(steps):
        action()
    finish(device)
    return (time.perf_counter() - start) / steps


def peak(device: torch.device, side: int) -> float:
    """Operations per second of a product of two square matrices in bf16."""
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        matrix @ matrix
    return 2 * side**3 / min(seconds(lambda: matrix @ matrix, 5, device) for _ in range(5))


def waits(action: Action, device: torch.device) -> dict[str, int]:
    """Where the host waits for the device within one action, and how often."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as seen:
        action()
    finish(device)
    return {event.key: event.count for event in seen.key_averages() if event.key in WAITS}


def operations(action: Action) -> int:
    """Of the convolutions and matrix products in one action."""
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The peak, and for each model, kind of work and side its numbers."""
    device = torch.device(options.device)
    top = peak(device, 256 if options.tiny else 8192)
    found: dict[str, Any] = {"peak": top}
    for name in options.models:
        size = 64 if options.tiny else MODELS[name]["size"]
        count = 1 if options.tiny else 32
        amounts = [operations(one) for one in ours(name, size, count, device, compiled=False)]
        sides = {"singleshot": ours(name, size, count, device, compiled=not options.tiny)}
        if find_spec("torchvision"):
            sides["torchvision"] = theirs(name, size, count, device)
        for work, place in (("training", 0), ("inference", 1)):
            times: dict[str, list[float]] = {side: [] for side in sides}
            for actions in sides.values():
                seconds(actions[place], 1 if options.tiny else 5, device)  # compiles
            for _ in range(options.rounds):
                for side, actions in sides.items():
                    times[side].append(seconds(actions[place], options.steps, device))
            for side, values in times.items():
                usual = statistics.median(values)
                found[f"{name}, {work}, {side}"] = {
                    "images_per_second": count / usual,
                    "share_of_peak": amounts[place] / usual / top,
                    "waits": waits(sides[side][place], device),
                }
    return found


def main() -> None:
    """Print one line for each model, kind of work and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=list(MODELS)[:2], default=list(MODELS)[:2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    found = measure(options := parser.parse_args())
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'bf16 peak':48} {found.pop('peak') / 1e12:8.1f} TFLOP/s")
    for name, row in found.items():
        print(f"{name:48} {row['images_per_second']:8.1f} images/s {100 * row['share_of_peak']:5.1f}%  {row['waits']}")


if __name__ == "__main__":
    main()
