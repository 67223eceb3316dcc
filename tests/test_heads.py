"""Heads: one layer per map and output, rows in the anchors' order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from singleshot.heads import Branch, Head


def conv(head: Head, level: int, branch: int, name: str) -> nn.Conv2d:
    return head.levels[level][branch].predict[name]  # type: ignore[no-any-return,union-attr,index]


def example(**options: object) -> Head:
    torch.manual_seed(0)
    branches = [Branch({"class_logits": 5}, {"class_logits": -2.0}), Branch({"box_deltas": 4})]
    return Head((8, 6), (3, 2), branches)


def test_shapes_and_order() -> None:
    """Levels in order; within a level row, then column, then box: the anchors' order."""
    head = example()
    maps = [torch.randn(2, 8, 4, 5), torch.randn(2, 6, 1, 2)]
    predictions = head(maps)
    assert predictions["class_logits"].shape == (2, 4 * 5 * 3 + 1 * 2 * 2, 5)
    assert predictions["box_deltas"].shape == (2, 64, 4)
    for name, numbers, branch in (("class_logits", 5, 0), ("box_deltas", 4, 1)):
        row = 0
        for level, count in enumerate((3, 2)):
            layer = conv(head, level, branch, name)
            plain = F.conv2d(maps[level], layer.weight, layer.bias, padding=1)
            for y in range(plain.shape[2]):
                for x in range(plain.shape[3]):
                    for box in range(count):
                        expected = plain[:, box * numbers : (box + 1) * numbers, y, x]
                        torch.testing.assert_close(predictions[name][:, row], expected)
                        row += 1


def test_one_3x3_layer_per_map_and_output_without_sharing() -> None:
    head = example()
    layers = [part for part in head.modules() if isinstance(part, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [(8, 15), (8, 12), (6, 10), (6, 8)]
    assert all(layer.kernel_size == (3, 3) and layer.padding == (1, 1) for layer in layers)


def test_initialisation_is_uniform_by_fan_in_with_the_given_bias() -> None:
    head = example()
    layer = conv(head, 0, 0, "class_logits")
    bound = (3 / (8 * 9)) ** 0.5
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.95 * bound
    assert (layer.bias == -2).all()
    assert (conv(head, 1, 1, "box_deltas").bias == 0).all()


def test_float32_whatever_autocast_does() -> None:
    head = example()
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head([torch.randn(1, 8, 3, 3), torch.randn(1, 6, 1, 1)])
    assert {value.dtype for value in predictions.values()} == {torch.float32}


def test_several_outputs_of_one_branch() -> None:
    head = Head((4,), (2,), [Branch({"box_deltas": 4, "iou_logits": 1})])
    predictions = head([torch.randn(1, 4, 2, 2)])
    assert predictions["iou_logits"].shape == (1, 8, 1)
