"""Small layers that several parts share, and the papers' initialisations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from singleshot.errors import UserError
from singleshot.fused import FusedConv2d

Activation = Literal["relu", "relu6"]
ACTIVATIONS: Mapping[Activation, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}
"""The activations that a builder may name."""
Padding = Literal["symmetric", "same"]
"""Where a convolution with a stride pads: as much on each side, or as TensorFlow's SAME (`same_padding`)."""


def refuse_padding(padding: str) -> None:
    """Raise `UserError` for anything but the two kinds of `Padding`."""
    if padding not in get_args(Padding):
        raise UserError(f"padding: expected one of {', '.join(get_args(Padding))}, got {padding!r}")


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros before and after `size` cells for TensorFlow's padding "SAME".

    A map of n cells becomes one of ceil(n / stride). An odd number of zeros has one more after (at the bottom and at
    the right), so it depends on the size which cells of the input an output sees: with kernel 3 and stride 2 it is (0,
    1) for an even size and (1, 1) for an odd one.
    """
    last = (size - 1) // stride * stride  # where the last output begins, counted from the first
    total = max(last + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


class L2Scale(nn.Module):
    """Divides each cell's vector of channels by its length, then multiplies each channel by a learned scale.

    [B, C, H, W] -> the same shape and dtype. The sum of squares is always in float32, also under autocast (squares of
    512 channels overflow float16 and lose their small terms in bfloat16). ParseNet; SSD section 3.1 (conv4_3, scale
    20).
    """

    eps = 1e-10  # inside the sum of squares, as in the authors' Normalize layer

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(initial)))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise over dimension 1; a cell of zeros stays zero."""
        exact = features.float()
        length = (exact.square().sum(1, keepdim=True) + self.eps).rsqrt()
        return (exact * length * self.weight.float()[:, None, None]).to(features.dtype)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return str(len(self.weight))


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that can keep its statistics fixed; state-dict keys are those of `nn.BatchNorm2d`.

    Maps of a single cell are normalised with the running statistics in training too, because one value per image is not
    enough for statistics (with two images all results would be -1 or 1, and one image has no variance).

    Scale and shift stay parameters when frozen. So a state dict, a parameter count and a weight-decay rule see the same
    network in both cases.
    """

    frozen = False

    def freeze(self, *, affine: bool = True) -> None:
        """Use the running statistics from now on, also in training mode; with `affine`, fix scale and shift too."""
        self.frozen = True
        self.eval()
        if affine:
            self.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        if not self.training or input.shape[-2:] != (1, 1):
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def train(self, mode: bool = True) -> BatchNorm2d:
        """As `nn.Module.train`, but a frozen layer stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He, 2018), always in float32, also under autocast; the result has the input's dtype.

    On CUDA autocast already does this. On the CPU bfloat16 would take three times longer and be less exact.
    """

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape and dtype."""
        scale, shift = self.weight.float(), self.bias.float()  # 16 bits after `.half()`
        return F.group_norm(features.float(), self.num_groups, scale, shift, self.eps).to(features.dtype)


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al., 2018): each channel is multiplied by a weight from 0 to 1, computed from the map.

    `reduction`: channels per unit of the hidden layer. Before training every weight is about a half.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)
        he_normal_(self)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        weights: Tensor = self.excite(self.squeeze(features.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return features * weights


class StridedConv2d(nn.Conv2d):
    """A convolution with a stride, trained in float32 on the CPU in cases where bfloat16 is slow or wrong.

    There are two such cases under autocast on the CPU. For a depthwise convolution the gradient of the input takes
    about thirty times longer in bfloat16 than in float32; four such layers would be a good part of a MobileNet's
    training step. On maps that are one cell wide the gradient of the weights is read from uninitialised memory (torch
    2.13). On other devices, in evaluation mode and without gradients this is an `nn.Conv2d`.

    `padding` may also be "same": TensorFlow's padding, which depends on the size of the map (`same_padding`).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int | Literal["same"] = 0,
        dilation: int = 1,
        groups: int = 1,
        *,
        bias: bool = True,
    ) -> None:
        # PyTorch refuses its own padding "same" with a stride; it would pad the beginning less, but never by the size.
        super().__init__(inputs, outputs, kernel, stride, 0 if padding == "same" else padding, dilation, groups, bias)
        self.same = padding == "same"

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[B, C, H, W] -> maps with the dtype that autocast gives."""
        exact = self.groups == self.in_channels > 1 or input.shape[-1] == 1
        learns = self.training and torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        if not (exact and learns and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return self._padded(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            found = self._padded(input.float(), weight, bias)
        return found.to(torch.get_autocast_dtype("cpu"))

    def _padded(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.same:
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        input, padding = self.pad(input)
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def pad(self, input: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The map with what TensorFlow's padding has more at its end, and the padding that is left for all sides."""
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        top, bottom = same_padding(input.shape[-2], kernel, stride, dilation)
        left, right = same_padding(input.shape[-1], kernel, stride, dilation)
        if (top, left) != (bottom, right):  # a copy of the map, which the convolution's own padding does not need
            input = F.pad(input, (0, right - left, 0, bottom - top))
        return input, (top, left)


def conv_norm(
    convolution: nn.Conv2d | FusedConv2d,
    norm: BatchNorm2d,
    features: Tensor,
    activation: nn.Module | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """`activation(norm(convolution(features)) + plus)`; the activation and the sum may be left out.

    With fixed statistics only a convolution, with the norm folded into its weights. A `FusedConv2d` does all at once.

    This is for frozen norms, and in training also for those that only keep their statistics. Such a norm scales and
    shifts each channel, which the convolution's weights and bias can do (Jacob et al., 2018, section 3.2). This saves
    two passes over maps that may be large. All parameters get the same gradients as without it.
    """
    if isinstance(convolution, FusedConv2d):
        return convolution(features, activation, plus)  # type: ignore[no-any-return]
    usual = norm.training or not (norm.frozen or torch.is_grad_enabled())
    found = norm(convolution(features)) if usual else _folded(convolution, norm, features)
    if plus is not None:
        found = found.add_(plus)
    return found if activation is None else activation(found)


def _folded(convolution: nn.Conv2d, norm: BatchNorm2d, features: Tensor) -> Tensor:
    """A convolution and a norm of fixed statistics as one convolution."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    weight = convolution.weight * scale[:, None, None, None]
    return convolution._conv_forward(features, weight, shift)  # type: ignore[no-any-return]


class ConvNormAct(nn.Sequential):
    """Convolution, then optionally batch norm (which replaces the bias), then optionally an activation.

    Keys are `0.weight`, `0.bias` for the convolution and `1.*` for the norm, as in torchvision's block of this kind.
    `padding`: a number of cells; "symmetric", which keeps the size at stride 1; or "same", TensorFlow's, which differs
    from it with a stride (kernels are odd).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | Padding = "symmetric",
        dilation: int = 1,
        groups: int = 1,
        norm: bool = False,
        activation: Callable[..., nn.Module] | None = nn.ReLU,
    ) -> None:
        if padding == "symmetric" or (padding == "same" and stride == 1):
            padding = dilation * (kernel - 1) // 2
        convolution = StridedConv2d if stride > 1 else nn.Conv2d
        parts: list[nn.Module] = [
            convolution(inputs, outputs, kernel, stride, padding, dilation, groups, bias=not norm),
        ]
        if norm:
            parts.append(BatchNorm2d(outputs))
        if activation is not None:
            parts.append(activation(inplace=True))
        super().__init__(*parts)

    def forward(self, input: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', W']."""
        layers = list(self)
        if len(layers) > 1 and isinstance(layers[1], BatchNorm2d):
            features, others = conv_norm(layers[0], layers[1], input), layers[2:]  # type: ignore[arg-type]
        else:
            features, others = layers[0](input), layers[1:]
        for layer in others:
            features = layer(features)
        return features


def _convolutions(module: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]


@torch.no_grad()
def fan_in_uniform_(module: nn.Module) -> None:
    """Draw every convolution's weights from U(-sqrt(3 / fan_in), sqrt(3 / fan_in)); biases 0.

    This is Caffe's "xavier", which by default uses only fan_in. The SSD and RefineDet authors use it for the layers
    that they add. PyTorch's `xavier_uniform_` also counts the outputs, so it is a different distribution.
    """
    for part in _convolutions(module):
        bound = (3 / part.weight[0].numel()) ** 0.5  # Caffe's fan_in: count / shape[0], also for a deconvolution
        part.weight.uniform_(-bound, bound)
        if part.bias is not None:
            part.bias.zero_()


@torch.no_grad()
def he_normal_(module: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_in), which suits ReLU; biases 0 (He et al., 2015)."""
    for part in _convolutions(module):
        part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5)
        if part.bias is not None:
            part.bias.zero_()


@torch.no_grad()
def normal_(module: nn.Module, *, std: float) -> None:
    """Draw every convolution's weights from N(0, std^2); biases 0."""
    for part in _convolutions(module):
        part.weight.normal_(0, std)
        if part.bias is not None:
            part.bias.zero_()
