"""Computes torchvision_ssdlite.json beside it: what torchvision's SSDlite320 says for made-up weights.

To make the file again: `python make_torchvision_ssdlite_fixture.py` in its folder, with any Python that has torchvision
0.13 or later. The tests need no torchvision: they make the same weights and images from the formulas below, and compare
with the file.
"""

from __future__ import annotations

import importlib
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_torchvision_fixture import KEPT, checksum, made_up_images, rounded, shapes_of, uniform
from numpy.typing import NDArray
from torch import Tensor

FIXTURE = Path(__file__).with_name("torchvision_ssdlite.json")
OUTPUTS = 4
BOXES = 6 * (20 * 20 + 10 * 10 + 5 * 5 + 3 * 3 + 2 * 2 + 1)
SAMPLES = 60


def made_up(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values for an entry of torchvision's state dict that keep the size of the activations about 1.

    Variances of batch norm go down to 1e-3, so that its epsilon shows.
    """
    values = 2 * uniform(key, math.prod(shape)).reshape(shape) - 1
    module, _, kind = key.rpartition(".")
    if kind == "running_var":
        return (10 ** (1.5 * values - 1.5)).astype(np.float32)
    if kind == "running_mean":
        return (0.1 * values).astype(np.float32)
    if len(shape) == 4:
        factor = 0.5 if "head" in key and key.endswith("1.weight") else 1.0
        return (factor * math.sqrt(6 / math.prod(shape[1:])) * values).astype(np.float32)
    if kind == "weight":  # a norm: undoes the variance
        deviation = np.sqrt(made_up(f"{module}.running_var", shape))
        return ((1 + 0.2 * values) * deviation).astype(np.float32)
    values = 0.3 * values
    if "classification_head" in key and key.endswith("1.bias") and ".0.1." not in key:
        values.reshape(-1, OUTPUTS)[:, 0] += 3.0  # the background
    return values.astype(np.float32)


def made_up_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A whole state dict."""
    return {key: torch.from_numpy(made_up(key, shape)) for key, shape in shapes.items()}


def positions() -> list[tuple[int, int]]:
    """(image, box) of the samples: of all maps, the coarser a map the denser; the last box of all too."""
    return [(i % 2, BOXES - 1 - int((BOXES - 1) * (1 - i / (SAMPLES - 1)) ** 2)) for i in range(SAMPLES)]


def outputs() -> dict[str, Any]:
    """What torchvision's network says about the images."""
    build = importlib.import_module("torchvision.models.detection").ssdlite320_mobilenet_v3_large
    model = build(weights=None, weights_backbone=None, num_classes=OUTPUTS).eval()
    shapes = shapes_of(model.state_dict())
    model.load_state_dict(made_up_weights(shapes), strict=False)
    caught: dict[str, Any] = {}
    model.head.register_forward_hook(lambda _module, _inputs, result: caught.update(result))
    model.anchor_generator.register_forward_hook(lambda _module, _inputs, result: caught.update(anchors=result[0]))
    with torch.no_grad():
        found = model(made_up_images())
    logits, deltas, anchors = caught["cls_logits"], caught["bbox_regression"], caught["anchors"]
    return {
        "layout": checksum(shapes),
        "logits": [rounded(logits[place]) for place in positions()],
        "deltas": [rounded(deltas[place]) for place in positions()],
        "anchors": [rounded(anchors[box]) for _, box in positions()],
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


def main() -> None:
    versions = {name: importlib.import_module(name).__version__ for name in ("torchvision", "torch", "numpy")}
    content = {"made_with": {**versions, "python": platform.python_version()}, **outputs()}
    print([(one["count"], one["scores"], one["labels"]) for one in content["detections"]])
    print(np.std(content["logits"], 0), np.std(content["deltas"], 0))
    FIXTURE.write_text(json.dumps(content).replace('], "', '],\n"').replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    main()
