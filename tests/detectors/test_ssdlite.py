"""The choices of `ssd` that make SSDLite and the detectors of TensorFlow's Object Detection API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import assert_exports
from torch import nn

import singleshot as ss
from singleshot.anchors import BoxShapes, DefaultBoxes
from singleshot.detectors import Detector, ssd
from singleshot.detectors.transfer import transfer
from singleshot.errors import UserError
from singleshot.layers import ConvNormAct

SMALL: dict[str, Any] = {
    "num_classes": 2, "backbone": "mobilenetv2", "backbone_options": {"width": 0.25, "padding": "same"},
    "image_size": 96,
}  # fmt: skip
SQUARES = [[[0.1, 0.1], [0.3, 0.2]], [[0.4, 0.4]], [[0.9, 0.9]]]
LITE: dict[str, Any] = {
    **SMALL, "finest_stride": 16, "extra_channels": [16], "separable_extras": True, "separable_heads": True,
    "activation": "relu6", "box_shapes": SQUARES,
}  # fmt: skip


def described(**arguments: Any) -> Detector:
    with torch.device("meta"):
        return ssd(**{**SMALL, **arguments})


def cells(detector: Detector) -> list[int]:
    return [height for height, _ in detector.map_shapes(detector.image_size)]


def test_finer_maps_than_the_stride_are_not_read() -> None:
    usual, coarse = described(), described(finest_stride=16)
    assert cells(usual) == [12, 6, 3, 2, 1]
    assert cells(coarse) == [6, 3, 2, 1]
    assert coarse.backbone.channels == usual.backbone.channels[1:]
    assert cells(described(finest_stride=9, source_maps=[0, 2])) == [6, 2]  # indices of the maps that are left


@pytest.mark.parametrize(
    ("channels", "expected"), [([], [12, 6, 3]), ([24], [12, 6, 3, 2]), ([24, 16, 8], [12, 6, 3, 2, 1, 1])]
)
def test_extra_levels_are_as_many_as_their_channels(channels: list[int], expected: list[int]) -> None:
    detector = described(extra_channels=channels)
    assert cells(detector) == expected
    assert list(detector.backbone.channels[3:]) == channels


def test_extra_levels_pad_as_the_backbone_does() -> None:
    same, symmetric = described(), described(backbone_options={"width": 0.25})
    assert cells(same) == [12, 6, 3, 2, 1]  # TensorFlow always halves
    assert cells(symmetric) == [12, 6, 3, 1]  # 3x3 to one cell without padding


def test_one_level_of_ssdlite_by_hand() -> None:
    torch.manual_seed(0)
    detector = ssd(**LITE).eval()
    extra, first = detector.backbone.extras[0], detector.head.levels[0]
    kinds = [(block[0].kernel_size[0], block[0].groups, block[0].bias is None) for block in extra]
    assert kinds == [(1, 1, True), (3, 8, True), (1, 1, True)]
    relus = [layer for layer in detector.backbone.extras.modules() if isinstance(layer, nn.ReLU | nn.ReLU6)]
    assert [type(relu) for relu in relus] == [nn.ReLU6] * 3
    features = torch.randn(2, detector.backbone.channels[0], 3, 3)
    boxes = first[1]
    before, predict = boxes.before["box_deltas"], boxes.predict["box_deltas"]
    assert isinstance(before, ConvNormAct)
    assert (before[0].groups, before[0].kernel_size, predict.kernel_size) == (features.shape[1], (3, 3), (1, 1))
    found = predict(before[2](before[1](before[0](features))))
    torch.testing.assert_close(boxes(features)["box_deltas"], found.permute(0, 2, 3, 1).reshape(2, 18, 4))


def test_predictions_of_1x1() -> None:
    detector = described(head_kernel=1)
    predicting = [layer for name, layer in detector.head.named_modules() if ".predict." in name]
    assert {layer.kernel_size for layer in predicting} == {(1, 1)}
    assert {layer.padding for layer in predicting} == {(0, 0)}


def test_given_boxes_are_around_the_centres_in_their_order() -> None:
    """By hand, on an image that is not square: shares are of its shorter side."""
    detector = described(image_size=[96, 192], finest_stride=16, extra_channels=[16], box_shapes=SQUARES)
    boxes = detector.anchors_for((96, 192)).boxes
    torch.testing.assert_close(
        boxes[:3],
        torch.tensor([[8 - 4.8, 8 - 4.8, 8 + 4.8, 8 + 4.8], [8 - 14.4, 8 - 9.6, 8 + 14.4, 8 + 9.6],
                      [24 - 4.8, 8 - 4.8, 24 + 4.8, 8 + 4.8]]),
    )  # fmt: skip
    chosen = described(source_maps=[1], box_shapes=[[[0.5, 0.5]]])
    assert sum(chosen.anchors_for((96, 96)).counts) == 36
    assert DefaultBoxes([[BoxShapes(((2.0, 4.0),))]])([(1, 1)], (8, 8)).boxes.tolist() == [[3, 2, 5, 6]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"finest_stride": 64}, "maps at strides 8, 16, 32"),
        ({"finest_stride": 0}, "finest_stride must be at least 1"),
        ({"extra_channels": [1]}, "at least 2"),
        ({"head_kernel": 5}, "head_kernel must be one of 1, 3"),
        ({"head_kernel": 1, "separable_heads": True}, "leave out head_kernel=1"),
        ({"activation": "gelu"}, "activation must be one of relu, relu6"),
        ({"box_shapes": SQUARES}, "one list for each of the 5 maps"),
        ({"box_shapes": [[[0.1]]] * 5}, "width, height"),
        ({"box_shapes": [[[0.1, 0.0]]] * 5}, "above 0"),
        ({"box_shapes": [[[0.1, float("nan")]]] * 5}, "above 0"),
        ({"box_shapes": [[]] * 5}, "width, height"),
        ({"box_shapes": [[[0.1, 0.1]]] * 5, "aspect_ratios": [2.0]}, "leave out box_sizes"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        described(**arguments)


def test_ssdlite_trains_and_is_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = ssd(**LITE)
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]), "labels": torch.tensor([1])}
    sum(detector([torch.rand(3, 96, 96)] * 2, [target] * 2).values()).backward()
    assert not [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    ss.save(detector.eval(), tmp_path / "lite.safetensors")
    again = ss.load(tmp_path / "lite.safetensors")
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        for name, values in detector.predictions(pixels)[0].items():
            assert torch.equal(again.predictions(pixels)[0][name], values)


@pytest.mark.slow
def test_ssdlite_is_exported() -> None:
    torch.manual_seed(0)
    assert_exports(ssd(**LITE).eval())


def test_classes_of_separable_heads_are_found_by_name() -> None:
    source, target = ssd(**LITE, class_names=["cat", "dog"]), ssd(**LITE, class_names=["dog", "bird"])
    done = transfer(source, target)
    name = "head.levels.0.0.predict.class_logits.weight"
    assert name in done.partly
    assert torch.equal(target.state_dict()[name][0], source.state_dict()[name][1])
    assert "head.levels.0.0.before.class_logits.0.weight" in done.taken
