"""Maps of backbones as torchvision and timm compute them: writes tests/backbones/original_maps.json.

    python benchmarks/backbone_maps.py           # needs torchvision and timm: an environment of their own
    python benchmarks/backbone_maps.py --check   # compute again, and compare with the file

All weights and pixels are given by a formula, so the file holds only numbers that the test of our own networks compares
with: a hash of the names and shapes of all tensors, and a few values of each map.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OUT = Path(__file__).resolve().parents[1] / "tests" / "backbones" / "original_maps.json"
SIDES = (64, 96)  # pixels
CLASSIFIERS = ("classifier.", "fc.")


def formula_(state: Mapping[str, Tensor]) -> str:
    """Fill a state dict by a formula of names, places and shapes. Returns a hash of the names and shapes.

    Classifiers and counters of batches do not count.
    """
    shapes = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if name.startswith(CLASSIFIERS) or not value.is_floating_point():
            continue
        shapes.update(f"{name} {tuple(value.shape)}\n".encode())
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big")
        wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 1.7 + place).reshape(value.shape)
        if value.ndim > 1:
            wave = wave * (3 / value[0].numel()) ** 0.5
        elif name.endswith("running_var") or name.endswith("weight"):
            wave = 1 + wave / 4
        else:
            wave = wave / 4
        value.copy_(wave)
    return shapes.hexdigest()


def pixels() -> Tensor:
    """Pixels [1, 3, H, W] by a formula, from -1 to 1."""
    count = 3 * SIDES[0] * SIDES[1]
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.37).float().reshape(1, 3, *SIDES)


def values(maps: Iterable[Tensor]) -> list[dict[str, Any]]:
    """What the file holds of each map: its shape, its mean size, and eight values from the first to the last."""
    found = []
    for features in maps:
        flat = features.double().flatten()
        some = flat[torch.linspace(0, len(flat) - 1, 8).long()]
        found.append(
            {
                "shape": list(features.shape),
                "size": _digits(flat.abs().mean()),
                "values": [_digits(one) for one in some],
            }
        )
    return found


def _digits(value: Tensor) -> float:
    return float(f"{float(value):.7g}")


def hooked(network: nn.Module, places: Iterable[str]) -> list[Tensor]:
    """The outputs of some modules for the pixels of the formula."""
    maps: list[Tensor] = []
    for place in places:
        network.get_submodule(place).register_forward_hook(lambda _, __, output: maps.append(output.clone()))
    with torch.no_grad():
        network.eval()(pixels())
    return maps


def originals() -> dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]]:
    """Our name -> the original network, and where its maps are: the expansions, or the stages, and the last layer."""
    import timm
    from torchvision import models

    found: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {}
    for size in range(4):
        build = getattr(models, f"efficientnet_b{size}")
        found[f"efficientnet_b{size}"] = (build, ("features.4.0.block.0", "features.6.0.block.0", "features.8"))
    places = ("features.7.block.0", "features.13.block.0", "features.16")
    found["mobilenetv3_large"] = (models.mobilenet_v3_large, places)
    found["mobilenetv3_large reduced_tail"] = (lambda: models.mobilenet_v3_large(reduced_tail=True), places)
    found["mobilenetv2"] = (models.mobilenet_v2, ("features.7.conv.0", "features.14.conv.0", "features.18"))
    layers = ("layer2", "layer3", "layer4")
    for name in ("resnet18", "resnet50", "resnext50_32x4d", "resnext101_64x4d"):
        found[name] = (getattr(models, name), layers)
    for name in ("resnet18d", "resnet50d"):
        found[name] = (lambda name=name: timm.create_model(name, pretrained=False), layers)
    return found


def main(words: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file, and write nothing")
    options = parser.parse_args(words)
    found = {}
    for name, (build, places) in originals().items():
        network = build()
        shapes = formula_(network.state_dict())
        found[name] = {"shapes": shapes, "maps": values(hooked(network, places))}
        print(name, [each["shape"] for each in found[name]["maps"]], flush=True)
    text = "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in found.items()) + "\n}\n"
    if options.check:
        before = json.loads(OUT.read_text(encoding="utf-8"))
        same = before.keys() == found.keys() and all(_near(before[name], found[name]) for name in found)
        print("the same" if same else f"{OUT.name} differs")
        return 0 if same else 1
    OUT.write_text(text, encoding="utf-8")
    return 0


def _near(before: dict[str, Any], now: dict[str, Any]) -> bool:
    pairs = zip(before["maps"], now["maps"], strict=True)
    numbers = [[torch.tensor([each["size"], *each["values"]]) for each in pair] for pair in pairs]
    return before["shapes"] == now["shapes"] and all(torch.allclose(*pair, rtol=1e-4, atol=1e-5) for pair in numbers)


if __name__ == "__main__":
    sys.exit(main())
