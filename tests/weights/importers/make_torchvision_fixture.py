"""Computes torchvision_retinanet.json beside it: the outputs of torchvision's RetinaNets for made-up weights.

To make the file again: `python make_torchvision_fixture.py` in its folder, with any Python that has torchvision 0.13
or later (Debian: apt-get install python3-torchvision). The tests need no torchvision: they make the same weights and
images from the formulas below, and compare with the file.
"""

from __future__ import annotations

import importlib
import json
import math
import platform
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIXTURE = Path(__file__).with_name("torchvision_retinanet.json")
MODELS = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2")
SHORT, LONGEST = 128, 200  # min_size, max_size
# Awkward ones: the second is made 195 x 127 (torchvision rounds down; 128 would be the short side), and the coarse maps
# are no whole fractions of the input.
SIZES = ((117, 173), (150, 98))
SAMPLES = 40
KEPT = 20  # detections of each image that the file holds
CLASSES = 91
LOUD = {"inner_blocks": 0.1, "p6": 2.0, "p7": 2.0, "bbox_reg": 0.15}  # multiples of He's initialisation


def uniform(key: str, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) that depend on the name alone: raw output of PCG64, the same in every version of NumPy."""
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) / 2**53


def made_up(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values for an entry of torchvision's state dict that keep the size of the activations about 1.

    Variances of batch norm go down to 1e-4, so that its epsilon shows.
    """
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    values = uniform(key, math.prod(shape)).reshape(shape)
    module, _, kind = key.rpartition(".")
    if kind == "running_var":
        return (10 ** (-4 * values)).astype(np.float32)
    if kind == "running_mean":
        return (0.1 * (2 * values - 1)).astype(np.float32)
    if len(shape) == 4:  # uniform of variance 2 / fan_in, times what brings all levels to much the same size
        scale = math.sqrt(6 / math.prod(shape[1:])) * next((LOUD[part] for part in LOUD if part in key), 1.0)
        return (scale * (2 * values - 1)).astype(np.float32)
    if kind == "weight" and "backbone.body" in key:  # a norm: undoes the variance; the last of a block adds little
        deviation = np.sqrt(made_up(f"{module}.running_var", shape))
        return ((0.8 + 0.4 * values) * deviation * (0.3 if module.endswith("bn3") else 1.0)).astype(np.float32)
    if kind == "weight":  # group norm
        return (0.8 + 0.4 * values).astype(np.float32)
    return (0.1 * (2 * values - 1) - (4.0 if "cls_logits" in key else 0.0)).astype(np.float32)


def made_up_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A whole state dict."""
    return {key: torch.from_numpy(made_up(key, shape)) for key, shape in shapes.items()}


def made_up_images() -> list[Tensor]:
    """Pictures [3, height, width] in 0..1 with gradients, edges and texture."""
    images = []
    for number, (height, width) in enumerate(SIZES):
        c, y, x = np.meshgrid(np.arange(3), np.arange(height), np.arange(width), indexing="ij")
        values = (7 * x + 3 * y * (number + 1) + 60 * c + (x // 16 * 5 + y // 24 * 11) % 13 * 12 + x * y % 37) % 256
        images.append(torch.from_numpy((values / 255).astype(np.float32)))
    return images


def positions(anchors: int) -> list[tuple[int, int, int]]:
    """(image, anchor, class) of the samples: anchors of all maps, the coarser a map the denser."""
    return [(i % 2, int(anchors * (1 - (1 - i / SAMPLES) ** 2)), i * 29 % CLASSES) for i in range(SAMPLES)]


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape, without the counters of batch norm, which released files lack."""
    return {key: tuple(value.shape) for key, value in weights.items() if not key.endswith("num_batches_tracked")}


def checksum(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """One number for all names and shapes."""
    return zlib.crc32(repr(sorted(shapes.items())).encode())


def outputs(name: str) -> dict[str, Any]:
    """What torchvision's model of this name says about the images."""
    detection = importlib.import_module("torchvision.models.detection")
    model = getattr(detection, name)(weights=None, weights_backbone=None, min_size=SHORT, max_size=LONGEST).eval()
    shapes = shapes_of(model.state_dict())
    model.load_state_dict(made_up_weights(shapes), strict=False)
    epsilon = 1e-5
    if name == MODELS[0]:  # what torchvision does to its released weights of this model
        epsilon = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = epsilon
    caught: dict[str, Any] = {}
    model.head.register_forward_hook(lambda _module, _inputs, result: caught.update(result))
    model.anchor_generator.register_forward_hook(lambda _module, _inputs, result: caught.update(anchors=result[0]))
    maps: list[int] = []
    model.backbone.register_forward_hook(
        lambda _module, _inputs, result: maps.extend(m.shape[2] * m.shape[3] for m in result.values())
    )
    with torch.no_grad():
        found = model(made_up_images())
    logits, deltas, anchors = caught["cls_logits"], caught["bbox_regression"], caught["anchors"]
    counts = [cells * len(anchors) // sum(maps) for cells in maps]
    places = positions(len(anchors))
    return {
        "epsilon": epsilon,
        "state_dict": {"entries": len(shapes), "checksum": checksum(shapes)},
        "counts": counts,
        "logits": [rounded(logits[i, a, k]) for i, a, k in places],
        "deltas": [rounded(deltas[i, a]) for i, a, _ in places],
        "anchors": [rounded(anchors[a]) for _, a, _ in places],
        "level_mean_std": {
            "logits": [rounded(torch.stack(moments(part))) for part in logits.split(counts, 1)],
            "deltas": [rounded(torch.stack(moments(part))) for part in deltas.split(counts, 1)],
        },
        "detections": [
            {
                "count": len(one["scores"]),
                "scores": rounded(one["scores"][:KEPT]),
                "labels": one["labels"][:KEPT].tolist(),
                "boxes": rounded(one["boxes"][:KEPT]),
            }
            for one in found
        ],
    }


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over everything."""
    return values.double().mean(), values.double().std()


def rounded(values: Tensor) -> Any:
    """As plain data with digits enough for a comparison at 1e-4."""
    plain = values.double().numpy().round(6)
    return plain.tolist()


def main() -> None:
    torch.manual_seed(0)
    versions = {name: importlib.import_module(name).__version__ for name in ("torchvision", "torch", "numpy")}
    content: dict[str, Any] = {"made_with": {**versions, "python": platform.python_version()}}
    for name in MODELS:
        content[name] = outputs(name)
        print(name, content[name]["level_mean_std"], [found["scores"] for found in content[name]["detections"]])
    FIXTURE.write_text(json.dumps(content).replace('], "', '],\n"').replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    main()
