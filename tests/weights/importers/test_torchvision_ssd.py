"""Torchvision's SSD300 in ours: the stored outputs of the real one, its layout, and what is refused.

`torchvision_ssd.json` holds what torchvision's own network says; see `make_torchvision_ssd_fixture.py`.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot.backbones import vgg
from singleshot.detectors import ssd
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.source import Source
from singleshot.weights.importers import import_weights, torchvision_ssd

sys.path.insert(0, str(Path(__file__).parent))
import make_torchvision_ssd_fixture as made

EXPECTED: dict[str, Any] = json.loads(made.FIXTURE.read_text())


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg, "BLOCKS", made.BLOCKS)


def layout(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Torchvision's names, and the shapes that our network needs."""
    with without_values():
        state = ssd(num_classes=num_classes).state_dict()
    nothing = Source({})
    return {torchvision_ssd.rename(key, nothing)[0]: tuple(value.shape) for key, value in state.items()}


@functools.cache
def weights() -> dict[str, Tensor]:
    """Asked for only while the network is narrow."""
    return made.made_up_weights(layout(made.OUTPUTS - 1))


def assert_close(found: Tensor, expected: Any, relative: float = 0.0) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), rtol=relative, atol=1e-4)


def test_the_layout_is_torchvisions() -> None:
    assert made.checksum(layout(90)) == EXPECTED["whole"]


@pytest.mark.usefixtures("narrow")
def test_it_says_and_finds_what_torchvisions_says_and_finds() -> None:
    """Best first, default boxes as long as the image at most, boxes cut before suppression, labels from 1."""
    detector = import_weights(weights())
    assert made.checksum(layout(made.OUTPUTS - 1)) == EXPECTED["narrow"]
    images = made.made_up_images()
    with torch.no_grad():
        raw = detector.raw(images)
        results = detector.detections(raw)
    logits, places = raw.predictions["class_logits"], made.positions()
    assert logits.shape == (2, made.BOXES, made.OUTPUTS)
    found = torch.stack([logits[place] for place in places])
    assert_close(found.roll(1, -1), EXPECTED["logits"], 1e-5)  # the background is the last here
    assert_close(torch.stack([raw.predictions["box_deltas"][place] for place in places]), EXPECTED["deltas"], 1e-5)
    assert_close(torch.stack([raw.anchors.boxes[box] for _, box in places]), EXPECTED["anchors"])
    for one, expected in zip(results, EXPECTED["detections"], strict=True):
        assert len(one["scores"]) == expected["count"] == 200
        assert [detector.category_ids[label] for label in one["labels"][: made.KEPT]] == expected["labels"]
        assert len(set(expected["labels"])) > 1
        assert_close(one["scores"][: made.KEPT], expected["scores"])
        assert_close(one["boxes"][: made.KEPT], expected["boxes"], relative=1e-5)


@pytest.mark.usefixtures("narrow")
def test_what_is_not_possible_is_told() -> None:
    bias = "head.regression_head.module_list.0.bias"
    with pytest.raises(UserError, match=rf"{bias} has 24 numbers and .* 24; expected 16 and a multiple of 4"):
        import_weights({**weights(), bias: torch.zeros(24)})
    with pytest.raises(UserError, match="torchvision's SSD300 on .*1 unexpected: backbone.extra.5.0.weight"):
        import_weights({**weights(), "backbone.extra.5.0.weight": torch.zeros(1)})


def test_cocos_classes_have_cocos_ids() -> None:
    name, told = torchvision_ssd.builder(
        Source({key: torch.empty(shape, device="meta") for key, shape in layout(90).items()})
    )
    named = dict(zip(told["category_ids"], told["class_names"], strict=True))
    assert (name, named[1], named[12], named[90]) == ("ssd", "person", "unused 12", "toothbrush")
