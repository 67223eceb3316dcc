"""Our detectors and torchvision's in one process: from an image file to detections.

    PYTHON benchmarks/peers.py [--only ssd300 retinanet ssdlite refinedet] [--rounds 7] [--engines torch openvino]
        [--image FILE] [--out FILE.md]

PYTHON is that of an environment with torchvision (`pip install torchvision`), and for more engines with the extras
`export` and `openvino`. The weights are random. The layers that predict classes are changed, here and there, so that
the same share of the scores passes the threshold. All take turns; shown are medians. "eager" are the modules as they
are trained: what is compared where torchvision has no such detector. A row takes up to 90 seconds on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import singleshot as ss
from singleshot.benchmarking import loads
from singleshot.benchmarking.machine import this_machine
from singleshot.benchmarking.pictures import generated
from singleshot.benchmarking.timing import interleaved
from singleshot.data.images import read_image
from singleshot.errors import UserError
from singleshot.memory import keep_freed_memory

SHARE = 0.03  # scores above the threshold, for each box that the network predicts


@dataclass(frozen=True)
class Row:
    """One comparison: how our detector is made, and how torchvision's."""

    ours: Callable[[], Any]
    theirs: str | None  # the function of torchvision.models.detection
    arguments: dict[str, Any]
    threshold: float  # torchvision's
    target: float | None = None  # our default engine against the other


ROWS = {
    "ssd300": Row(lambda: ss.ssd(num_classes=90), "ssd300_vgg16", {"num_classes": 91}, 0.01, 1.3),
    "retinanet": Row(
        lambda: ss.retinanet(num_classes=90), "retinanet_resnet50_fpn", {"num_classes": 91}, 0.05, 1.3
    ),
    "ssdlite": Row(
        lambda: ss.ssd(num_classes=90, backbone="mobilenetv2", image_size=320),
        "ssdlite320_mobilenet_v3_large", {"num_classes": 91}, 0.001,  # its own threshold
    ),
    "refinedet": Row(lambda: ss.refinedet(num_classes=20), None, {}, 0.01),
}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=["torch"], metavar="NAME", help="torch, onnxruntime, openvino")
    parser.add_argument("--image", type=Path, help="an image file (default: a generated JPEG of 640x480)")
    parser.add_argument("--out", type=Path, help="write the table here too")
    options = parser.parse_args(words)
    keep_freed_memory(torch.device("cpu"))  # for torchvision too: whoever trains with this package has it anyway
    torch.manual_seed(0)
    about = f"{this_machine().line()}; Python {platform.python_version()}, torch {torch.__version__}"
    lines = [f"{about}, torchvision {_version()}, medians of {options.rounds} rounds", ""]
    lines += [
        "| detector | run by | scores above the threshold | ms | times torchvision (or eager) |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SINGLESHOT_CACHE"] = folder  # of converted detectors
        image = options.image or generated(Path(folder)).paths[0]
        for name in options.only:
            for line in _measured(name, ROWS[name], image, Path(folder), options):
                lines.append(line)
                print(line, flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")
    return 0


def _measured(name: str, row: Row, image: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    detector = row.ours().eval()
    pixels = torch.from_numpy(read_image(image)).permute(2, 0, 1).contiguous()
    load = loads.made(detector, [pixels], SHARE)
    calls: dict[str, Callable[[], Any]] = {}
    shares: dict[str, float] = {}
    other = None if row.theirs is None else _torchvision(row, pixels)
    if other is not None:
        model, share = other
        shares["torchvision"] = share
        calls["torchvision"] = lambda: _seen_by(model, image)
    else:
        eager = row.ours().eval()
        eager.load_state_dict(detector.state_dict())
        eager.network = _as_it_is(eager.network)
        shares["eager"], calls["eager"] = load.share, lambda: eager.predict(image)
    path = folder / f"{name}.safetensors"
    ss.save(detector, path)
    for engine in options.engines:
        try:
            model_of = detector if engine == "torch" else ss.load(path, engine=engine)
        except (UserError, ImportError) as error:
            print(f"{name} with {engine}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        label = f"singleshot, {engine}"
        shares[label], calls[label] = load.share, lambda model_of=model_of: model_of.predict(image)
    taken, _ = interleaved([_timed(call) for call in calls.values()], rounds=options.rounds)
    medians = {label: statistics.median(one["all"] for one in times) for label, times in zip(calls, taken, strict=True)}
    base = next(iter(medians.values()))
    target = "" if row.target is None else f" (target {row.target})"
    return [
        f"| {name} | {label} | {100 * shares[label]:.1f} % | {1e3 * seconds:.0f} | {base / seconds:.2f}{target} |"
        for label, seconds in medians.items()
    ]


def _as_it_is(network: Callable[..., Any]) -> Callable[..., Any]:
    return lambda pixels: network(pixels.contiguous())


def _torchvision(row: Row, pixels: torch.Tensor) -> tuple[Any, float] | None:
    """Their detector with the same share of scores above its threshold; None without torchvision."""
    try:
        from torchvision.models import detection
    except ImportError:
        print(
            "torchvision cannot be imported here: what follows is compared with our own eager modules", file=sys.stderr
        )
        return None
    model = getattr(detection, str(row.theirs))(weights=None, weights_backbone=None, **row.arguments).eval()
    return model, _loaded(model, pixels.float() / 255, row.threshold)


@torch.inference_mode()
def _loaded(model: Any, image: torch.Tensor, threshold: float) -> float:
    """Spread and move their class logits as `loads.made` does with ours; gives the share of scores that pass."""
    seen: list[torch.Tensor] = []
    head = model.head.classification_head
    handle = head.register_forward_hook(lambda _part, _given, found: seen.append(found))
    model([image])
    handle.remove()
    logits = seen[0].flatten(0, 1)
    centre = logits.mean(0)
    factor = 2.0 / float(logits.std(0).mean())
    softmax = type(model).__name__ == "SSD"
    values = (logits - centre) * factor

    def moved(shift: float) -> torch.Tensor:
        change = torch.full_like(centre, -shift)
        if softmax:
            change = torch.zeros_like(centre)
            change[0] = shift  # the background, which comes first
        return change

    def passing(shift: float) -> float:
        now = values + moved(shift)
        scores = now.softmax(-1)[:, 1:] if softmax else now.sigmoid()
        return float((scores > threshold).sum()) / len(values)

    low, high = -30.0, 30.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if passing(middle) > SHARE else (low, middle)
    classes = len(centre)
    for part in head.modules():
        if isinstance(part, torch.nn.Conv2d) and part.bias is not None and part.out_channels % classes == 0:
            if not softmax and part.out_channels == 256:
                continue
            times = part.out_channels // classes
            part.weight.data.mul_(factor)
            part.bias.data.sub_(centre.repeat(times)).mul_(factor).add_(moved(high).repeat(times))
    return passing(high)


@torch.inference_mode()
def _seen_by(model: Any, image: Path) -> Any:
    """As torchvision's pages do it: Pillow, a float tensor, the model."""
    from torchvision.io import decode_image

    return model([decode_image(str(image)).float() / 255])


def _timed(call: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    def timed() -> dict[str, float]:
        start = time.perf_counter()
        call()
        return {"all": time.perf_counter() - start}

    return timed


def _version() -> str:
    try:
        import torchvision
    except ImportError:
        return "none"
    return str(torchvision.__version__)


if __name__ == "__main__":
    sys.exit(main())
