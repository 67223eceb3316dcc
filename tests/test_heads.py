"""Heads: one layer per map and output, rows in the anchors' order."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from singleshot.errors import UserError
from singleshot.heads import Branch, BranchLayers, Head
from singleshot.layers import GroupNorm, normal_


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


def tower_head(norm: str | None = None, *, shared: bool = True) -> Head:
    branches = [
        Branch({"class_logits": 5}, {"class_logits": -2.0}, 4, norm, partial(normal_, std=0.01)),
        Branch({"box_deltas": 4, "iou_logits": 1}, {}, 4, norm, partial(normal_, std=0.01)),
    ]
    return Head((32, 32, 32), (9, 9, 9), branches, shared=shared)


MAPS = [torch.randn(2, 32, side, side, generator=torch.Generator().manual_seed(side)) for side in (4, 2, 1)]


def test_shared_towers_read_every_level_alike() -> None:
    head = tower_head()
    alone = [head([features] * 3)["box_deltas"][:, : features.shape[-1] ** 2 * 9] for features in MAPS]
    torch.testing.assert_close(head(MAPS)["box_deltas"], torch.cat(alone, 1))


def test_sharing_has_the_parameters_of_one_level() -> None:
    def count(head: Head) -> int:
        return sum(parameter.numel() for parameter in head.parameters())

    tower = 4 * (32 * 32 * 9 + 32)
    outputs = [numbers * 9 * (32 * 9 + 1) for numbers in (5, 4, 1)]
    assert count(tower_head()) == 2 * tower + sum(outputs)
    assert count(tower_head(shared=False)) == 3 * count(tower_head())
    assert len(tower_head().state_dict()) == len(set(map(id, tower_head().state_dict().values())))


def test_iou_output_shares_the_tower_of_the_box() -> None:
    branch = tower_head().levels[0][1]  # type: ignore[index]
    assert isinstance(branch, BranchLayers)
    assert len([part for part in branch.tower if isinstance(part, nn.Conv2d)]) == 4
    assert set(branch.predict) == {"box_deltas", "iou_logits"}


def test_towers_are_drawn_small_with_the_prior_on_the_class_output_only() -> None:
    head = tower_head()
    weights = torch.cat([p.flatten() for name, p in head.named_parameters() if name.endswith("weight")])
    assert float(weights.detach().std()) == pytest.approx(0.01, rel=0.05)
    biases = {name: p for name, p in head.named_parameters() if name.endswith("bias")}
    for name, bias in biases.items():
        assert (bias == (-2.0 if "class_logits" in name else 0.0)).all(), name


def test_group_norm_replaces_the_bias() -> None:
    branch = Head((64,), (9,), [Branch({"a": 1}, depth=4, norm="group")]).levels[0][0]  # type: ignore[index]
    assert isinstance(branch, BranchLayers)
    kinds = [type(part) for part in branch.tower][:3]
    assert kinds == [nn.Conv2d, GroupNorm, nn.ReLU]
    assert branch.tower[0].bias is None


def test_towers_that_cannot_be_built() -> None:
    for channels in (40, 32):
        with pytest.raises(UserError, match="64, 96"):
            Head((channels,), (9,), [Branch({"a": 1}, depth=1, norm="group")])
    with pytest.raises(UserError, match="batch"):
        Head((32,), (9,), [Branch({"a": 1}, depth=1, norm="batch")])
    with pytest.raises(ValueError, match="alike"):
        Head((32, 16), (9, 9), [Branch({"a": 1})], shared=True)
