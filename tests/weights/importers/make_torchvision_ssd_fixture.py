"""Computes torchvision_ssd.json beside it: what torchvision's SSD300 says for made-up weights.

To make the file again: `python make_torchvision_ssd_fixture.py` in its folder, with any Python that has torchvision
0.13 or later. The tests need no torchvision: they make the same weights and images from the formulas below, and compare
with the file. The network is torchvision's own, on a VGG-16 with few channels, so that the weights are soon made. For
the whole `ssd300_vgg16` the file holds a checksum of all names and shapes.
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

FIXTURE = Path(__file__).with_name("torchvision_ssd.json")
BLOCKS = ((4, 4), (8, 8), (16, 16, 16), (32, 32, 512), (32, 32, 512))  # torchvision's extractor asks for the two 512
OUTPUTS = 6
BOXES = 8732
SAMPLES = 60


def made_up(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values for an entry of torchvision's state dict that keep the size of the activations about 1."""
    values = 2 * uniform(key, math.prod(shape)).reshape(shape) - 1
    if key.endswith("scale_weight"):
        return (20 + 5 * values).astype(np.float32)
    if len(shape) == 4:
        loud = {"features.0.": 1 / 60, "classification_head": 1.5, "regression_head": 0.6}
        factor = next((loud[part] for part in loud if part in key), 1.0)
        return (factor * math.sqrt(6 / math.prod(shape[1:])) * values).astype(np.float32)
    values = 0.2 * values
    if "classification_head" in key:
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
    ssd = importlib.import_module("torchvision.models.detection.ssd")
    vgg = importlib.import_module("torchvision.models.vgg")
    plain: list[Any] = [part for block in BLOCKS for part in (*block, "M")]
    whole = ssd.ssd300_vgg16(weights=None, weights_backbone=None)
    settings = {name: getattr(whole, name) for name in ("score_thresh", "nms_thresh", "detections_per_img")}
    model = ssd.SSD(
        ssd.SSDFeatureExtractorVGG(vgg.make_layers(plain), False), whole.anchor_generator, (300, 300), OUTPUTS,
        image_mean=whole.transform.image_mean, image_std=whole.transform.image_std,
        topk_candidates=whole.topk_candidates, **settings,
    ).eval()  # fmt: skip
    model.load_state_dict(made_up_weights(shapes_of(model.state_dict())))
    caught: dict[str, Any] = {}
    model.head.register_forward_hook(lambda _module, _inputs, result: caught.update(result))
    model.anchor_generator.register_forward_hook(lambda _module, _inputs, result: caught.update(anchors=result[0]))
    with torch.no_grad():
        found = model(made_up_images())
    logits, deltas, anchors = caught["cls_logits"], caught["bbox_regression"], caught["anchors"]
    return {
        "whole": checksum(shapes_of(whole.state_dict())),
        "narrow": checksum(shapes_of(model.state_dict())),
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
