"""A convolution with all that follows it (batch norm, sum, activation) in one pass over the map, to detect with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The names and numbers that oneDNN has for activations, by the exact type of the module.
_ACTIVATIONS: dict[type, tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


class FusedConv2d(nn.Module):
    """The values of a convolution and of the batch norm behind it, folded; for inference only.

    With fixed statistics the norm only scales and shifts each channel, which the convolution's weights and bias can do
    (Jacob et al., 2018, section 3.2). The weights are copies in float32 or bfloat16, with the channels last. On the
    CPU, sum and activation are part of oneDNN's convolution: functions of PyTorch that its compiler uses
    (`mkldnn._convolution_pointwise`). Where they do not work, the usual ones are used.

    `padded`: makes a map ready for a convolution whose padding depends on the size of the map; it gives the map and the
    padding that is left to do.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        convolution: nn.Conv2d,
        norm: nn.BatchNorm2d | None = None,
        activation: nn.Module | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        padded: Callable[[Tensor], tuple[Tensor, tuple[int, int]]] | None = None,
    ) -> None:
        super().__init__()
        weight, bias = _folded(convolution, norm)
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.padded, self.dtype = padded, dtype
        self.stride, self.padding = convolution.stride, convolution.padding
        self.dilation, self.groups = convolution.dilation, convolution.groups
        self.activation = activation
        self.fast = weight.device.type == "cpu" and not isinstance(self.padding, str) and works(dtype)
        self.register_buffer("weight", weight, persistent=False)  # there is nothing to train or save here
        self.register_buffer("bias", None if bias is None else bias.to(dtype), persistent=False)

    def forward(self, features: Tensor, activation: nn.Module | None = None, plus: Tensor | None = None) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', W']; `plus` is added, then comes the activation (none: the own one)."""
        if activation is None or type(activation) is nn.Identity:  # the place of one that is in here already
            activation = self.activation
        padding = self.padding
        if self.padded is not None:
            features, padding = self.padded(features)
        features = features.to(self.dtype)
        if not self.fast:
            found = F.conv2d(features, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
            return _then(found, activation, plus)
        name, numbers = _ACTIVATIONS.get(type(activation), ("none", []))
        own = (self.weight, self.bias, padding, self.stride, self.dilation, self.groups)
        if plus is None:
            found = torch.ops.mkldnn._convolution_pointwise(features, *own, name, numbers, "")
        elif name in ("none", "relu"):
            unary = None if name == "none" else name
            plus = plus.to(self.dtype)
            found = torch.ops.mkldnn._convolution_pointwise.binary(features, plus, *own, "add", 1.0, unary, [], "")
        else:
            found = _then(torch.ops.mkldnn._convolution_pointwise(features, *own, "none", [], ""), None, plus)
            name = "none"
        return found if name != "none" else _then(found, activation)


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    weight, bias = convolution.weight.detach().float(), convolution.bias
    bias = None if bias is None else bias.detach().float()
    if norm is None:
        return weight, bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.detach(), shift * norm.weight.detach() + norm.bias.detach()
    if bias is not None:
        shift = shift + bias * scale
    return (weight * scale[:, None, None, None]).float(), shift.float()


def _then(features: Tensor, activation: nn.Module | None, plus: Tensor | None = None) -> Tensor:
    """The sum and the activation, where they are passes of their own."""
    if plus is not None:
        features = features.add_(plus)
    if activation is None:
        return features
    kind = type(activation)
    if kind is nn.ReLU:
        return features.relu_()
    return F.relu6(features, inplace=True) if kind is nn.ReLU6 else activation(features)


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's convolutions are here, and compute what PyTorch's usual ones compute."""
    channels, size = 8, 5
    try:
        with torch.inference_mode():
            values = torch.arange(channels * channels * 9, dtype=torch.float32).sin().to(dtype)
            weight = values.view(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
            image = values[: channels * size * size].view(1, channels, size, size)
            image = image.contiguous(memory_format=torch.channels_last)
            own = ((1, 1), (1, 1), (1, 1), 1)
            usual = F.conv2d(image, weight, None, padding=1).float()
            calls = torch.ops.mkldnn._convolution_pointwise
            clipped = calls(image, weight, None, *own, "hardtanh", [0.0, 6.0], "").float()
            summed = calls.binary(image, image, weight, None, *own, "add", 1.0, "relu", [], "").float()
            apart = max(
                float((clipped - usual.clamp(0, 6)).abs().max()),
                float((summed - (usual + image.float()).relu()).abs().max()),
            )
            return apart < (1e-4 if dtype == torch.float32 else 0.1)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):  # another version, or built without it
        return False
