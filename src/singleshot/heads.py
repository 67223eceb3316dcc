"""Predictions per anchor, read from feature maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from singleshot.layers import fan_in_uniform_
from singleshot.structures import Predictions


@dataclass(frozen=True)
class Branch:
    """Predictions that are read from the end of one tower: name -> numbers per anchor.

    `bias`: the initial bias by name, 0 where a name is missing (focal loss's prior lives there).
    """

    outputs: Mapping[str, int]
    bias: Mapping[str, float] = field(default_factory=dict)
    initialise: Callable[[nn.Module], object] = fan_in_uniform_


class BranchLayers(nn.Module):
    """The layers of a branch on one map."""

    def __init__(self, branch: Branch, channels: int, anchors: int) -> None:
        super().__init__()
        self.outputs = dict(branch.outputs)
        self.predict = nn.ModuleDict(
            {name: nn.Conv2d(channels, anchors * numbers, 3, padding=1) for name, numbers in branch.outputs.items()}
        )
        for name, conv in self.predict.items():
            branch.initialise(conv)
            nn.init.constant_(conv.get_parameter("bias"), branch.bias.get(name, 0.0))

    def forward(self, features: Tensor) -> Predictions:
        """[B, C, H, W] -> name -> [B, H * W * anchors per cell, numbers]."""
        return {
            name: self.predict[name](features).permute(0, 2, 3, 1).reshape(len(features), -1, numbers)
            for name, numbers in self.outputs.items()
        }


class Head(nn.Module):
    """Branches applied to every map, each map with layers of its own.

    Forward: maps -> name -> float32 [B, A, numbers]; levels in order, within a level row, column, box.
    """

    def __init__(self, channels: Sequence[int], anchors: Sequence[int], branches: Sequence[Branch]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(BranchLayers(branch, width, count) for branch in branches)
            for width, count in zip(channels, anchors, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Predictions:
        levels: list[Predictions] = []
        for branches, level in zip(self.levels, features, strict=True):
            assert isinstance(branches, nn.ModuleList)
            levels.append({name: value for branch in branches for name, value in branch(level).items()})
        return {name: torch.cat([level[name] for level in levels], 1).float() for name in levels[0]}
