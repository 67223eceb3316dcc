"""Torchvision's SSDlite320 in ours: the stored outputs of the real one, its layout, and a norm that is folded.

`torchvision_ssdlite.json` holds what torchvision's own model says; see `make_torchvision_ssdlite_fixture.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from singleshot.detectors import BUILDERS
from singleshot.ops.shapes import without_values
from singleshot.source import Source
from singleshot.weights.importers import import_weights, torchvision_ssdlite
from singleshot.weights.importers.batch_norm import folded

sys.path.insert(0, str(Path(__file__).parent))
import make_torchvision_ssdlite_fixture as made

EXPECTED: dict[str, Any] = json.loads(made.FIXTURE.read_text())


def layout(outputs: int, *, tail: int = 480) -> dict[str, tuple[int, ...]]:
    """Torchvision's names, and the shapes that our network needs."""
    heads = {"head.classification_head": 6 * outputs, "head.regression_head": 24}
    known = {f"{name}.module_list.0.1.bias": torch.empty(rows) for name, rows in heads.items()}
    source = Source({**known, "backbone.features.1.3.0.weight": torch.empty(tail, 1)})
    builder, arguments = torchvision_ssdlite.builder(source)
    with without_values():
        state = BUILDERS[builder](**arguments).state_dict()
    found = {torchvision_ssdlite.rename(key, source)[0]: tuple(value.shape) for key, value in state.items()}
    for layer in ("backbone.extra.3.1", "backbone.extra.3.2"):  # folded, and so without a norm of their own here
        channels = found.pop(f"{layer}.0.bias")
        found |= {f"{layer}.1.{kind}": channels for kind in ("weight", "bias", "running_mean", "running_var")}
    return {key: shape for key, shape in found.items() if not key.endswith("num_batches_tracked")}


def assert_close(found: Tensor, expected: Any, absolute: float = 1e-4) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), rtol=1e-5, atol=absolute)


def test_it_says_and_finds_what_torchvisions_says_and_finds() -> None:
    shapes = layout(made.OUTPUTS)
    assert made.checksum(shapes) == EXPECTED["layout"]
    detector = import_weights(made.made_up_weights(shapes))
    assert (detector.class_names, detector.category_ids) == (("class 1", "class 2", "class 3"), (1, 2, 3))
    images = made.made_up_images()
    with torch.no_grad():
        raw = detector.raw(images)
        results = detector.detections(raw)
    logits, places = raw.predictions["class_logits"], made.positions()
    assert logits.shape == (2, made.BOXES, made.OUTPUTS)
    assert_close(torch.stack([logits[place] for place in places]).roll(1, -1), EXPECTED["logits"])
    assert_close(torch.stack([raw.predictions["box_deltas"][place] for place in places]), EXPECTED["deltas"])
    assert_close(torch.stack([raw.anchors.boxes[box] for _, box in places]), EXPECTED["anchors"])
    for one, expected in zip(results, EXPECTED["detections"], strict=True):
        assert len(one["scores"]) == expected["count"] == 300
        assert [detector.category_ids[label] for label in one["labels"][: made.KEPT]] == expected["labels"]
        assert_close(one["scores"][: made.KEPT], expected["scores"])
        # Pixels, of images of up to 173: the trunk is deep, and rounds its weights and ours in other places.
        assert_close(one["boxes"][: made.KEPT], expected["boxes"], 2e-3)


def test_a_trunk_that_began_with_imagenets_weights_has_a_whole_tail() -> None:
    assert layout(91, tail=960)["backbone.features.1.3.0.weight"] == (960, 160, 1, 1)
    assert layout(91)["backbone.features.1.3.0.weight"] == (480, 80, 1, 1)


def test_a_folded_norm_gives_the_same() -> None:
    convolution, norm = torch.nn.Conv2d(3, 4, 1, bias=False), torch.nn.BatchNorm2d(4, eps=1e-3).eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values.uniform_(0.1, 1)
        state = {f"n.{key}": value for key, value in norm.state_dict().items()} | {"c.weight": convolution.weight}
        x = torch.rand(1, 3, 2, 2)
        expected = norm(convolution(x))
        folded(state, "c", "n", 1e-3)
        assert sorted(state) == ["c.bias", "c.weight"]
        torch.testing.assert_close(torch.nn.functional.conv2d(x, state["c.weight"], state["c.bias"]), expected)
