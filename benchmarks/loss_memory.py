"""Memory and time of the classification losses: 16 images at 800x1344 with 80 classes, forward and backward.

    python benchmarks/loss_memory.py [--device cuda] [--losses FocalLoss OHEMLoss] [--scale 0.1] [--output FILE.json]

Each loss has its own process. The peak is that of the process (VmHWM of Linux, reset after the warm-up, when the logits
are in memory) or of the device (torch's own counter), minus the memory in use before. So it is the memory that the loss
needs in addition to the logits, including the gradient. `times_logits` gives it in units of the logits' memory;
`with_logits` is one more. "plain" is the focal loss written with PyTorch's own operations, for comparison. `--scale`
takes this share of the anchors.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.detectors.parts import restore_argument
from singleshot.losses import CLASSIFICATION_LOSSES
from singleshot.structures import Matched, Predictions

ANCHORS = 201_600  # of RetinaNet at 800x1344
POSITIVES = 60  # anchors of an image with an object
OHEM = {
    "OHEM 1:3": {"ratio": 3.0},
    "OHEM 1:3, 10,000": {"ratio": 3.0, "candidates": 10_000},
    "OHEM 1:3, positives kept": {"ratio": 3.0, "keep_positives": True},
}
LOSSES = ["plain", *CLASSIFICATION_LOSSES, *OHEM]


def built(name: str) -> Any:
    """The loss with its default settings."""
    if name == "plain":
        return plain
    return restore_argument({"type": "OHEMLoss", **OHEM[name]} if name in OHEM else {"type": name})


def plain(predictions: Predictions, matched: Matched) -> Tensor:
    """Focal loss with alpha 0.25 and gamma 2, written in the usual way."""
    logits = predictions["class_logits"]
    target = torch.zeros_like(logits).scatter_(2, matched.labels[..., None], matched.positive[..., None].float())
    p = logits.sigmoid()
    p_t = p * target + (1 - p) * (1 - target)
    alpha_t = 0.25 * target + 0.75 * (1 - target)
    loss = alpha_t * (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.where(matched.counted, loss.sum(-1), 0.0).sum()


def case(loss: Any, images: int, anchors: int, classes: int, device: str) -> tuple[Tensor, Matched]:
    """Logits as at the start of training, and a usual match: few positives, some ignored, boxes nearly right."""
    generator = torch.Generator(device).manual_seed(0)
    count = loss.num_logits(classes) if hasattr(loss, "num_logits") else classes
    logits = torch.empty(images, anchors, count, device=device).normal_(-4.6, 1.0, generator=generator)
    random = torch.rand(images, anchors, device=device, generator=generator)
    positive = random < POSITIVES / ANCHORS
    counted = positive | (random > 0.002)
    labels = torch.randint(0, classes, positive.shape, device=device, generator=generator) * positive
    low = torch.rand(anchors, 2, device=device, generator=generator) * 1000
    boxes = torch.cat([low, low + torch.rand(anchors, 2, device=device, generator=generator) * 200 + 20], 1)
    moved = (boxes + 2).expand(images, anchors, 4)  # the objects lie beside their anchors: IoUs below 1
    return logits.requires_grad_(), Matched(boxes, moved, labels, positive, counted, DeltaCoder())


def step(loss: Any, logits: Tensor, matched: Matched) -> float:
    """Forward and backward; the gradient is dropped."""
    deltas = torch.zeros(1, 1, 4, device=logits.device).expand(*logits.shape[:2], 4)
    value = loss({"class_logits": logits, "box_deltas": deltas}, matched)
    total = value[0] / value[1].clamp(min=1) if isinstance(value, tuple) else value
    total.backward()
    logits.grad = None
    return float(total.detach())


class Peak:
    """The highest memory use since the start minus that at the start, in bytes."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cpu":
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            self.before = self._status("VmRSS")
        else:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def bytes(self) -> int:
        """The difference so far, in bytes."""
        highest = self._status("VmHWM") if self.device == "cpu" else torch.cuda.max_memory_allocated()
        return highest - self.before

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one loss in this process."""
    loss, device = built(name), options.device
    step(loss, *case(loss, 1, 500, options.classes, device))  # libraries, threads, kernels
    logits, matched = case(loss, options.images, int(ANCHORS * options.scale), options.classes, device)
    own = logits.numel() * logits.element_size()
    peak = Peak(device)
    value = step(loss, logits, matched)
    highest = peak.bytes()
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        step(loss, logits, matched)  # ends when the value is on the host
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "loss": name,
        "value": value,
        "logits_gib": round(own / 2**30, 3),
        "peak_gib": round(highest / 2**30, 3),
        "times_logits": round(highest / own, 2),
        "with_logits": round(highest / own + 1, 2),
        "seconds": round(min(seconds), 4),
    }


def main() -> None:
    """Run the command line: measure each loss in its own process, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the 201,600 anchors")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    if options.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        parser.error("on a CPU the peak is read from Linux's /proc: run this on Linux, or use --device cuda")
    results = []
    for name in options.losses:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(measure, (name, options)))
    machine = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    report = {
        "device": options.device,
        "machine": machine,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "images": options.images,
        "anchors": int(ANCHORS * options.scale),
        "classes": options.classes,
        "results": results,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
