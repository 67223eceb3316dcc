"""Training steps per second side by side: this tree, an earlier commit, and torchvision where a Python has it.

    python benchmarks/training_peers.py [--peer PYTHON] [--against COMMIT] [--models ssd300_vgg16 ...] [--rounds 5]
                                        [--steps 2] [--threads 2] [--json]

PYTHON is an interpreter that can import torchvision, such as that of an environment with `pip install torchvision`.
Each side is one process. It builds its detector, keeps the memory that it frees, and then makes steps in turn with the
others: forward, losses, backward, optimiser (SGD, as in torchvision's references). The images are the same random ones,
already of the network's size, with 1 to 12 objects each. Ours have their norms and layouts as the recipe for the model
says, and `--layout` says otherwise. The script prints images per second (median of the rounds) and the median of the
ratios within a round. `--clock cpu` takes the time of the processor, all threads together, for a machine with other
work. One thread is no fair measure: PyTorch then computes 1x1 convolutions of fewer than 16 images without oneDNN.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from trees import trees

# name: builder, its arguments, whether the backbone's norms keep their statistics, size, batch, torchvision's function
MODELS: dict[str, dict[str, Any]] = {
    "ssd300_vgg16": {"builder": "ssd", "arguments": {"backbone": "vgg16"}, "size": 300, "batch": 4},
    "retinanet_resnet50": {
        "builder": "retinanet",
        "arguments": {"backbone": "resnet50", "norm": "freeze", "frozen_stages": 2, "resize": "stretch"},
        "size": 512,
        "batch": 2,
    },
    "ssd_mobilenetv2": {"builder": "ssd", "arguments": {"backbone": "mobilenetv2"}, "size": 320, "batch": 16},
    "retinanet_mobilenetv2": {
        "builder": "retinanet",
        "arguments": {"backbone": "mobilenetv2", "channels": 128, "tower_norm": "group", "resize": "stretch"},
        "size": 320,
        "batch": 16,
    },
    "refinedet_mobilenetv2": {
        "builder": "refinedet",
        "arguments": {"backbone": "mobilenetv2", "channels": 128},
        "size": 320,
        "batch": 16,
    },
}
FINETUNED = ("ssd_mobilenetv2", "retinanet_mobilenetv2", "refinedet_mobilenetv2")  # as `finetune`: norms stay
CLASSES = 20


def batch_of(size: int, count: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """Random images (uint8) and their objects, the same for every side."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(count):
        images.append(torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator))
        number = int(torch.randint(1, 13, (), generator=generator))
        low = torch.rand(number, 2, generator=generator) * size * 0.7
        side = size * 0.05 + torch.rand(number, 2, generator=generator) * size * 0.25
        labels = torch.randint(0, CLASSES, (number,), generator=generator)
        targets.append({"boxes": torch.cat([low, low + side], 1), "labels": labels})
    return images, targets


def ours(name: str, layout: str, compiled: bool) -> Callable[[], None]:
    """One step of this package."""
    import torch

    from singleshot.detectors.registry import find_builder
    from singleshot.training.optimizer import create_optimizer, keep_norm_statistics
    from singleshot.training.recipe import Compute, Optimizer

    try:
        from singleshot.memory import keep_freed_memory
    except ImportError:  # an earlier commit
        from singleshot.training.memory import keep_freed_memory

    keep_freed_memory(torch.device("cpu"))
    model = MODELS[name]
    detector = find_builder(model["builder"])(num_classes=CLASSES, image_size=model["size"], **model["arguments"])
    asked = {"true": True, "false": False, "recipe": True if name != "ssd300_vgg16" else Compute().channels_last}
    memory_format = torch.channels_last if asked[layout] else torch.contiguous_format
    detector = detector.to(memory_format=memory_format)
    optimizer = create_optimizer(detector, Optimizer(lr=1e-6))
    detector.train()
    if compiled:
        detector.network = torch.compile(detector.network)
    if name in FINETUNED:
        keep_norm_statistics(detector)
    images, targets = batch_of(model["size"], model["batch"])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(detector(images, targets).values())).sum().backward()
        optimizer.step()

    return step


def torchvision_detector(name: str, size: int) -> Any:
    """Torchvision's detector of this kind, with random weights, and frozen norms where it trains so from weights."""
    from torchvision.models import detection, resnet50
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import misc
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    if name == "ssd300_vgg16":
        return detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    if name == "ssd_mobilenetv2":
        return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    trunk = resnet50(weights=None, norm_layer=misc.FrozenBatchNorm2d)
    pyramid = _resnet_fpn_extractor(trunk, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(2048, 256))
    return detection.RetinaNet(pyramid, CLASSES + 1, min_size=size, max_size=size)


def theirs(name: str) -> Callable[[], None]:
    """One step of torchvision."""
    import ctypes

    import torch

    for number, value in ((-4, 0), (-1, -1), (-2, 64 << 20)):  # as `keep_freed_memory`
        ctypes.CDLL(None).mallopt(number, value)
    model = MODELS[name]
    detector = torchvision_detector(name, model["size"])
    detector.train()
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=5e-4)
    images, targets = batch_of(model["size"], model["batch"])
    images = [image / 255 for image in images]
    targets = [{**target, "labels": target["labels"] + 1} for target in targets]

    def step() -> None:
        optimizer.zero_grad()
        sum(detector(images, targets).values()).backward()
        optimizer.step()

    return step


def work(side: str, name: str, options: argparse.Namespace) -> None:
    """A side: says "ready", then makes as many steps as each line of the input says, and says how long they took."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    step = theirs(name) if side == "torchvision" else ours(name, options.layout, options.compile)
    step()
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = clock()
        for _ in range(int(line)):
            step()
        print(clock() - start, flush=True)


def compare(name: str, sides: dict[str, list[str]], options: argparse.Namespace) -> dict[str, float]:
    """Images per second of each side, and the ratio of ours to each other one."""
    processes = {}
    for side, command in sides.items():
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        if options.clock == "cpu":
            environment["OMP_WAIT_POLICY"] = "passive"  # a thread that waits must not count
        environment.pop("PYTHONPATH", None)
        if command[1:]:
            environment["PYTHONPATH"] = command[1]
        words = [command[0], __file__, "--worker", side, "--models", name, "--threads", str(options.threads)]
        words += ["--layout", options.layout, "--clock", options.clock, *(["--compile"] if options.compile else [])]
        processes[side] = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert processes[side].stdout.readline() == "ready\n", f"{side} has not started"
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in sorted(sides, reverse=bool(number % 2)):
            process = processes[side]
            process.stdin.write(f"{options.steps}\n")
            process.stdin.flush()
            times[side].append(float(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    images = MODELS[name]["batch"] * options.steps
    found = {side: images / statistics.median(values) for side, values in times.items()}
    for side in sides:
        if side != "now":
            ratios = [theirs / ours for theirs, ours in zip(times[side], times["now"], strict=True)]
            found[f"now / {side}"] = statistics.median(ratios)
    return found


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--layout", choices=["recipe", "true", "false"], default="recipe")
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.models[0], options)
        return
    found = {}
    with trees(options.against) as sources:
        sides = {side: [sys.executable, str(source)] for side, source in sources.items()}
        for name in options.models:
            peer = {"torchvision": [options.peer]} if options.peer and name in list(MODELS)[:3] else {}
            found[name] = compare(name, {**sides, **peer}, options)
            if not options.json:
                print(
                    f"{name:24}" + "   ".join(f"{side} {value:.2f}" for side, value in found[name].items()), flush=True
                )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
