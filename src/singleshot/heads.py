"""Predictions per anchor, read from feature maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from singleshot.errors import UserError
from singleshot.layers import GroupNorm, fan_in_uniform_
from singleshot.outputs.output import ExtraOutput
from singleshot.structures import Predictions

TOWER_NORMS = (None, "group")
_GROUPS = 32  # number of groups of group norm (Wu and He, 2018)


@dataclass(frozen=True)
class Branch:
    """Predictions at the end of one tower of 3x3 convolutions. `outputs`: name -> numbers per anchor.

    `bias`: the initial bias by name, by default 0 (the focal loss's prior goes here). `depth`: number of convolutions
    before the predicting one, each as wide as the map, with ReLU. `norm`: None or "group" (group norm before the ReLU,
    in place of the bias). `kernel`: of the predicting convolution. `before`: makes a layer for a number of channels,
    which each predicting convolution has before itself; a depthwise one makes the predictions of SSDLite.
    """

    outputs: Mapping[str, int]
    bias: Mapping[str, float] = field(default_factory=dict)
    depth: int = 0
    norm: str | None = None
    initialise: Callable[[nn.Module], object] = fan_in_uniform_
    kernel: int = 3
    before: Callable[[int], nn.Module] | None = None


class BranchLayers(nn.Module):
    """The layers of a branch for one map, or for all maps if they are shared."""

    def __init__(self, branch: Branch, channels: int, anchors: int) -> None:
        super().__init__()
        self.outputs = dict(branch.outputs)
        self.tower = nn.Sequential(
            *(layer for _ in range(branch.depth) for layer in _tower_layers(channels, branch.norm))
        )
        self.before = nn.ModuleDict({name: branch.before(channels) for name in branch.outputs if branch.before})
        kernel, padding = branch.kernel, branch.kernel // 2
        self.predict = nn.ModuleDict(
            {name: nn.Conv2d(channels, anchors * n, kernel, padding=padding) for name, n in branch.outputs.items()}
        )
        branch.initialise(self)
        for name, conv in self.predict.items():
            nn.init.constant_(conv.get_parameter("bias"), branch.bias.get(name, 0.0))

    def forward(self, features: Tensor) -> Predictions:
        """[B, C, H, W] -> name -> [B, H * W * anchors per cell, numbers]."""
        features = self.tower(features)
        found: Predictions = {}
        for name, numbers in self.outputs.items():
            read = self.before[name](features) if name in self.before else features
            found[name] = self.predict[name](read).permute(0, 2, 3, 1).reshape(features.shape[0], -1, numbers)
        return found


def _tower_layers(channels: int, norm: str | None) -> list[nn.Module]:
    if norm not in TOWER_NORMS:
        raise UserError(f"norm of the towers: expected one of {TOWER_NORMS}, got {norm!r}")
    layers: list[nn.Module] = [nn.Conv2d(channels, channels, 3, padding=1, bias=norm is None)]
    if norm == "group":
        if channels % _GROUPS or channels == _GROUPS:  # a group of one channel with one cell has no variance
            raise UserError(
                f"group norm has {_GROUPS} groups: expected {2 * _GROUPS}, {3 * _GROUPS}, ... channels, got {channels}"
                "; change the width of the towers, or leave out their norm"
            )
        layers.append(GroupNorm(_GROUPS, channels))
    return [*layers, nn.ReLU(inplace=True)]


class Head(nn.Module):
    """Branches applied to every map. Each map has its own layers, or all share the same layers (`shared`).

    `outputs` are predicted at the end of the boxes' tower, or at the end of a separate tower like it (`own_tower`).

    Forward: maps -> name -> float32 [B, A, numbers]. Anchors are ordered by level, row, column, box.
    """

    def __init__(
        self,
        channels: Sequence[int],
        anchors: Sequence[int],
        branches: Sequence[Branch],
        *,
        outputs: Sequence[ExtraOutput] = (),
        shared: bool = False,
    ) -> None:
        super().__init__()
        if shared and (len(set(channels)) > 1 or len(set(anchors)) > 1):
            raise ValueError(f"maps that share layers must be alike, got channels {channels} and anchors {anchors}")
        self.shared = shared
        branches = [one for branch in branches for one in _with_outputs(branch, outputs)]
        kinds = list(zip(channels, anchors, strict=True))
        self.levels = nn.ModuleList(
            nn.ModuleList(BranchLayers(branch, width, count) for branch in branches)
            for width, count in (kinds[:1] if shared else kinds)
        )

    def forward(self, features: list[Tensor]) -> Predictions:
        """Maps [B, C, H, W], one for each level -> name -> float32 [B, A, numbers], A the anchors of all levels."""
        levels: list[Predictions] = []
        copies = [self.levels[0]] * len(features) if self.shared else list(self.levels)
        for branches, level in zip(copies, features, strict=True):
            assert isinstance(branches, nn.ModuleList)
            levels.append({name: value for branch in branches for name, value in branch(level).items()})
        return {name: torch.cat([level[name] for level in levels], 1).float() for name in levels[0]}


def _with_outputs(branch: Branch, outputs: Sequence[ExtraOutput]) -> list[Branch]:
    """The boxes' branch with the outputs that share its tower, then one branch per own tower; others unchanged."""
    if "box_deltas" not in branch.outputs:
        return [branch]
    own = [output for output in outputs if output.own_tower]
    if own and not branch.depth:
        raise UserError(
            f"{own[0].name}: branch 'own' needs a head with towers, and this head has none (each output already has "
            "its own convolution on the maps); leave the choice of a branch out"
        )
    beside = {output.key: output.channels for output in outputs if not output.own_tower}
    first = replace(branch, outputs={**branch.outputs, **beside})
    return [first, *(replace(branch, outputs={output.key: output.channels}, bias={}) for output in own)]
