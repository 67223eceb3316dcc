"""The list of `singleshot models`: every named variant, with numbers measured on the built network."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from singleshot.detectors.detector import Detector
from singleshot.detectors.parts import store_argument
from singleshot.detectors.registry import BUILDERS, VARIANTS, backbone_of, create
from singleshot.ops.shapes import ShapesOnly, without_values


def count_parameters(detector: Detector) -> int:
    """The number of parameters, trainable or not, without buffers."""
    return sum(parameter.numel() for parameter in detector.parameters())


def count_flops(detector: Detector) -> int:
    """Floating-point operations of the network for one image; a multiply and an add count as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), ShapesOnly(convolutions=False):
        detector.network(torch.empty(1, 3, *detector.image_size, device=detector.device))
    return int(counter.get_total_flops())


def models(num_classes: int = 20) -> list[dict[str, Any]]:
    """One dict per variant: name, builder, arguments, input, parameters, boxes, gflops, published.

    Computed from the network itself, built without memory for its weights.
    """
    rows = []
    for name, variant in VARIANTS.items():
        with without_values():
            detector = create(name, num_classes=num_classes).eval()
        height, width = detector.image_size
        rows.append(
            {
                "name": name,
                "builder": variant.builder,
                "arguments": store_argument(dict(variant.arguments)),
                "input": [height, width],
                "parameters": count_parameters(detector),
                "boxes": sum(_counts(detector)),
                "gflops": round(count_flops(detector) / 1e9, 3),
                "published": variant.published,
            }
        )
    return rows


def stored_models() -> list[dict[str, Any]]:
    """What `cli/models.json` holds: `models`, and the backbone of each. `benchmarks/list_models.py` writes it."""
    return [{**model, "backbone": backbone_of(BUILDERS[model["builder"]], model["arguments"])} for model in models()]


def _counts(detector: Detector) -> list[int]:
    shapes = detector.map_shapes(detector.image_size)
    return [h * w * boxes for (h, w), boxes in zip(shapes, detector.anchors.per_location, strict=True)]
