"""singleshot.settle_norm: the statistics of photographs, and the same detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import singleshot as ss
from singleshot.detectors import Detector, ssd
from singleshot.errors import UserError
from singleshot.eval_mode import norms_not_following
from singleshot.layers import BatchNorm2d

SMALL: dict[str, Any] = {
    "num_classes": 2, "backbone": "mobilenetv1", "backbone_options": {"width": 0.125}, "image_size": 64,
}  # fmt: skip


def photographs(number: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) // (1 + k % 3) for k in range(number)]


def made(**arguments: Any) -> Detector:
    torch.manual_seed(0)
    return ssd(**{**SMALL, **arguments}).eval()


def values(detector: Detector) -> torch.Tensor:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return detector.predictions(pixels)[0]["class_logits"]


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_the_same_function_with_the_statistics_of_the_photographs(norm: str) -> None:
    detector = made(norm=norm)
    stem: Any = detector.get_submodule("backbone.backbone.features.0")
    before = values(detector)
    images = photographs(6)
    ss.settle_norm(detector, images, batch_size=4)
    torch.testing.assert_close(values(detector), before, rtol=1e-4, atol=1e-5)
    assert stem[1].frozen is (norm == "eval")
    with torch.no_grad():  # by hand, all images at once
        batch = detector.preprocess([torch.from_numpy(image).permute(2, 0, 1) for image in images], "cpu")
        read = stem[0](batch.pixels)
    torch.testing.assert_close(stem[1].running_mean, read.mean((0, 2, 3)))
    torch.testing.assert_close(stem[1].running_var, read.var((0, 2, 3), correction=0))


def test_training_mode_then_goes_on_from_there() -> None:
    detector = made()
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in photographs(6)]
    ss.settle_norm(detector, images)
    with torch.no_grad(), norms_not_following(detector):
        expected = detector.raw(images).predictions["class_logits"]
        found = detector.train().raw(images).predictions["class_logits"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_modes_and_precision_stay() -> None:
    detector = made().train()
    detector.precision = "bf16"
    detector.get_submodule("head").eval()
    modes = [part.training for part in detector.modules()]
    ss.settle_norm(detector, photographs(2))
    assert [part.training for part in detector.modules()] == modes
    assert detector.precision == "bf16"
    assert not any(part._forward_pre_hooks for part in detector.modules())


def test_what_cannot_be() -> None:
    detector = made()
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    with pytest.raises(UserError, match="needs photographs"):
        ss.settle_norm(detector, [])
    with pytest.raises(UserError, match="no such file"):
        ss.settle_norm(detector, [*photographs(1), "nothing.jpg"])
    assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())
    norms = [part for part in detector.modules() if isinstance(part, BatchNorm2d)]
    assert norms
    assert all(isinstance(part, nn.BatchNorm2d) for part in norms)
    detector.network = lambda pixels: {}
    with pytest.raises(UserError, match="network was replaced"):
        ss.settle_norm(detector, photographs(1))
