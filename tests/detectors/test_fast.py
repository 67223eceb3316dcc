"""The network that detects: the same numbers as the detector's own parts, and those of the weights as they are."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import singleshot as ss
from singleshot import fused
from singleshot.backbones import build
from singleshot.detectors.fast import FastNetwork, fuse
from singleshot.fused import FusedConv2d
from singleshot.layers import ConvNormAct, StridedConv2d

NARROW: dict[str, Any] = {
    "num_classes": 3, "backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "image_size": 64,
}  # fmt: skip


def with_statistics(module: nn.Module) -> nn.Module:
    """In eval mode, with norms that do something."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def made(name: str = "ssd", **arguments: Any) -> ss.Detector:
    torch.manual_seed(0)
    detector = getattr(ss, name)(**{**NARROW, **arguments})
    with_statistics(detector)
    return detector  # type: ignore[no-any-return]


def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ssd", {}),
        ("ssd", {"separable_extras": True, "separable_heads": True, "activation": "relu6"}),
        ("ssd", {"backbone_options": {"width": 0.25, "padding": "same"}, "image_size": 75}),
        ("retinanet", {"resize": "stretch"}),
        ("refinedet", {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_detectors_predict_the_same_numbers(name: str, arguments: dict[str, Any], dtype: str) -> None:
    detector = made(name, **arguments)
    height, width = detector.image_size
    pixels = torch.randn(2, 3, height, width)
    with torch.no_grad():
        expected, found = detector.network(pixels), FastNetwork(detector, dtype)(pixels)
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        assert found[key].dtype == torch.float32
        apart = (found[key] - values).abs().max() / values.abs().max()
        assert apart < (1e-4 if dtype == "fp32" else 0.1), key


@pytest.mark.parametrize("name", ["resnet18d", "resnet50", "mobilenetv3_large"])
@pytest.mark.parametrize("usual", [False, True], ids=["fused", "without oneDNN"])
@pytest.mark.slow
def test_backbones_give_the_same_maps(name: str, usual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if usual:
        monkeypatch.setattr(fused, "works", lambda dtype: False)
    torch.manual_seed(0)
    trunk = with_statistics(build(name))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = trunk(pixels)
        holder = nn.ModuleDict({"trunk": copy.deepcopy(trunk)})
        fuse(holder)
        found = holder["trunk"](pixels.contiguous(memory_format=torch.channels_last))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()
    assert not [part for part in holder.modules() if isinstance(part, nn.BatchNorm2d | nn.Conv2d)]


def test_a_convolution_with_all_that_follows_it_by_hand() -> None:
    for activation in (None, nn.ReLU, nn.ReLU6, nn.Hardswish):
        block = with_statistics(ConvNormAct(4, 6, norm=True, stride=2, padding="same", activation=activation))
        features, plus = torch.randn(2, 4, 9, 12), torch.randn(2, 6, 5, 6)
        convolution, norm, *last = block.children()
        assert isinstance(convolution, StridedConv2d)
        one = FusedConv2d(convolution, norm, last[0] if last else None, padded=convolution.pad)  # type: ignore[arg-type]
        with torch.no_grad():
            expected = norm(convolution(features)) + plus
            expected = last[0](expected) if last else expected
            torch.testing.assert_close(one(features, plus=plus), expected, rtol=1e-4, atol=1e-5)


class NormFirst(nn.Module):
    """A user's block, as in ResNet-v2 (He et al., 2016): the norm comes before the convolution of its number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.tail = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The map of the last convolution is taken before its activation."""
        return self.tail[0](self.conv1(self.bn1(features).relu()))  # type: ignore[no-any-return]


def test_what_a_user_wrote_is_not_fused() -> None:
    holder = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), NormFirst()))
    pixels = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        expected = holder(pixels)
        fuse(holder)
        torch.testing.assert_close(holder(pixels), expected)
    assert isinstance(holder[0], FusedConv2d)
    assert not isinstance(holder[2].conv1, FusedConv2d)


class TestTheCopyOfTheWeights:
    def test_predict_finds_what_forward_finds(self) -> None:
        detector = made()
        with torch.no_grad():
            expected = detector([image()])[0]
        found = detector.predict(image())
        torch.testing.assert_close(found.boxes, expected["boxes"], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(found.scores, expected["scores"], rtol=1e-3, atol=1e-4)

    def test_it_is_made_once(self) -> None:
        detector = made()
        first = detector.evaluator()
        second = detector.evaluator()
        assert first is not None
        assert second is not None
        assert first is not detector
        assert isinstance(first.network, FastNetwork)
        assert first.network is second.network

    def test_parameters_state_and_training_are_as_before(self) -> None:
        detector = made()
        names, modes = list(detector.state_dict()), [part.training for part in detector.modules()]
        tensors = [id(value) for value in detector.parameters()]
        detector.predict(image())
        assert list(detector.state_dict()) == names
        assert [part.training for part in detector.modules()] == modes
        assert [id(value) for value in detector.parameters()] == tensors
        assert all(value.is_contiguous() for value in detector.parameters())
        assert not [part for part in detector.modules() if isinstance(part, FusedConv2d)]

    @pytest.mark.parametrize(
        "way", ["step", "load", "statistics", "buffer", "to", "train", "part", "postprocess", "data"]
    )
    def test_what_changes_the_detector_changes_what_it_finds(self, way: str) -> None:
        detector = made()
        before = detector.predict(image())
        if way == "step":
            optimizer = torch.optim.SGD(detector.parameters(), 0.1)
            for parameter in detector.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        elif way == "load":
            other = made(num_classes=3)
            detector.load_state_dict({key: value * 1.2 for key, value in other.state_dict().items()})
        elif way == "statistics":
            next(part for part in detector.modules() if isinstance(part, nn.BatchNorm2d)).running_mean.add_(1)  # type: ignore[union-attr, operator]
        elif way == "buffer":
            norm = next(part for part in detector.modules() if isinstance(part, nn.BatchNorm2d))
            norm.running_var = torch.full_like(norm.running_var, 9)  # type: ignore[arg-type]
        elif way == "to":
            detector.to(torch.float64)
        elif way == "train":
            detector.train()
            detector.backbone.requires_grad_(False)
            for parameter in detector.head.parameters():
                parameter.data = parameter.data + 0.1
            detector.eval()
        elif way == "part":
            detector.head = made(num_classes=3).head
            with torch.no_grad():
                for parameter in detector.head.parameters():
                    parameter.add_(0.05)
        elif way == "data":
            for parameter in detector.head.parameters():
                parameter.data.mul_(1.5)  # PyTorch counts no write here
        else:
            detector.postprocess = ss.ssd(**NARROW, detections=1).postprocess
        found = detector.predict(image())
        with torch.no_grad():
            expected = detector([image()])[0]
        torch.testing.assert_close(found.scores, expected["scores"].float(), rtol=1e-3, atol=5e-3)  # ranks may swap
        assert way == "to" or len(found) != len(before) or not torch.allclose(found.scores, before.scores)

    def test_it_goes_when_training_begins_and_with_the_detector(self) -> None:
        detector = made()
        detector.predict(image())
        network = weakref.ref(detector.evaluator().network)  # type: ignore[union-attr]
        assert network() is not None
        detector.train()
        gc.collect()
        assert network() is None

    def test_copies_begin_without_it(self) -> None:
        detector = made()
        detector.predict(image())
        other = copy.deepcopy(detector)
        assert other._fast._kept is None
        assert torch.equal(other.predict(image()).scores, detector.predict(image()).scores)

    def test_hooks_of_a_user_are_called(self) -> None:
        detector = made()
        detector.predict(image())
        called: list[int] = []
        convolution = next(part for part in detector.modules() if isinstance(part, nn.Conv2d))
        handle = convolution.register_forward_hook(lambda *_: called.append(1))
        detector.predict(image())
        assert called
        handle.remove()

    def test_a_replaced_network_is_used(self) -> None:
        detector = made()
        called: list[int] = []
        parts = detector.network

        def network(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            called.append(1)
            return parts(pixels)

        detector.network = network
        detector.predict(image())
        assert called == [1]

    def test_bf16_is_taken_where_the_machine_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("singleshot.detectors.detector.fastest_precision", lambda device: "bf16")
        detector = made()
        assert detector.evaluator().network.precision == "bf16"  # type: ignore[union-attr]
        assert detector.precision == "fp32"
        detector.precision = "fp32"
        assert detector.evaluator().network.precision == "fp32"  # type: ignore[union-attr]
