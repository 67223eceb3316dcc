"""The convolutions of one of our networks, in the order in which they are computed, each with its norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from singleshot.layers import ACTIVATIONS, BatchNorm2d


@dataclass(frozen=True)
class Place:
    """Where a folded convolution goes: our convolution, and the norm after it, if there is one."""

    name: str
    convolution: nn.Conv2d
    norm_name: str | None = None
    norm: BatchNorm2d | None = None
    activation: str | None = None

    def differs(self, kernel: Tensor, bias: Tensor, stride: int, activation: str | None) -> str:
        """How a layer of a file differs from ours, as a text; empty if it fits."""
        came = (tuple(kernel.shape), tuple(bias.shape), stride, activation)
        weight = tuple(self.convolution.weight.shape)
        expected = (weight, weight[:1], self.convolution.stride[0], self.activation)
        if came == expected:
            return ""
        words = ("kernel", "bias", "stride", "activation")
        parts = [(word, one, other) for word, one, other in zip(words, came, expected, strict=True) if one != other]
        return "; ".join(f"has {word} {one}, expected {other}" for word, one, other in parts)

    def filled(self, kernel: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """The entries of our state dict, with a norm that changes nothing but adds the bias."""
        if self.norm is None:
            return {f"{self.name}.weight": kernel, f"{self.name}.bias": bias}
        one = torch.ones_like(bias)
        return {
            f"{self.name}.weight": kernel,
            f"{self.norm_name}.weight": (one + self.norm.eps).sqrt(),
            f"{self.norm_name}.bias": bias,
            f"{self.norm_name}.running_mean": torch.zeros_like(bias),
            f"{self.norm_name}.running_var": one,
        }


def places(prefix: str, module: nn.Module) -> list[Place]:
    """The places of a part of a detector, in the order of its layers."""
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    found: list[Place] = []
    for name, layer in module.named_modules(prefix=prefix):
        if isinstance(layer, nn.Conv2d):
            found.append(Place(name, layer))
        elif isinstance(layer, BatchNorm2d) and found:
            last = found.pop()
            found.append(Place(last.name, last.convolution, name, layer))
        elif type(layer) in names and found:
            last = found.pop()
            found.append(Place(last.name, last.convolution, last.norm_name, last.norm, names[type(layer)]))
    return found
