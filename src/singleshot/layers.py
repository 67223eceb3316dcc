"""Small layers that several parts share, and the initialisations of the papers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class L2Scale(nn.Module):
    """Divides each cell's vector of channels by its length, then multiplies each channel by a learned scale.

    [B, C, H, W] -> the same shape and dtype. The sum of squares is float32 whatever autocast does (squares of 512
    channels overflow float16 and lose their small terms in bfloat16). ParseNet; SSD section 3.1 (conv4_3, scale 20).
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
    """Batch normalisation that can stop following the batches; state-dict keys are `nn.BatchNorm2d`'s.

    Maps of a single cell are normalised with the running statistics in training too: as many values as images are no
    statistics (of two images they would all become -1 and 1, of one there are none).

    Scale and shift stay parameters when frozen, so a state dict, a parameter count and a weight-decay rule see the
    same network either way.
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
    """Group normalisation (Wu and He, 2018) in float32 whatever autocast does; the result has the input's dtype.

    Autocast does so on CUDA already. On the CPU it would take three times longer in bfloat16, and be less exact.
    """

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape and dtype."""
        return super().forward(features.float()).to(features.dtype)


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al., 2018): each channel times a weight from 0 to 1 that the whole map decides.

    `reduction`: channels per unit of the hidden layer. At first every weight is about a half.
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
    """A convolution with a stride, trained in float32 on the CPU where bfloat16 is slow or wrong there.

    Under autocast the gradient of a depthwise one's input takes some thirty times longer in bfloat16 than in float32,
    and four such layers would be a good part of a MobileNet's training step. The gradient of any one's weights on maps
    one cell wide is made of memory that nobody wrote (torch 2.13). Elsewhere, in evaluation mode, and where no gradient
    is asked for, it is an `nn.Conv2d`.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[B, C, H, W] -> maps of the same dtype as autocast gives."""
        exact = self.groups == self.in_channels > 1 or input.shape[-1] == 1
        learns = self.training and torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
        if not (exact and learns and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        with torch.autocast("cpu", enabled=False):
            found: Tensor = super()._conv_forward(input.float(), weight, bias)
        return found.to(torch.get_autocast_dtype("cpu"))


def conv_norm(convolution: nn.Conv2d, norm: BatchNorm2d, features: Tensor) -> Tensor:
    """`norm(convolution(features))`; where the norm is frozen the convolution alone, with the norm in its weights.

    With fixed statistics the norm multiplies each channel and adds to it, which weights and bias can do (Jacob et al.,
    2018, section 3.2): two passes less over maps that may be large. Gradients reach all parameters as without it.
    """
    if not norm.frozen:
        return norm(convolution(features))  # type: ignore[no-any-return]
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
    Padding keeps the size at stride 1 unless given.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = False,
        activation: Callable[..., nn.Module] | None = nn.ReLU,
    ) -> None:
        if padding is None:
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

    This is Caffe's "xavier" with its default of fan_in only, the SSD and RefineDet authors' choice for the layers
    that they add; PyTorch's `xavier_uniform_` also counts the outputs and is another distribution.
    """
    for part in _convolutions(module):
        bound = (3 / part.weight[0].numel()) ** 0.5  # Caffe's fan_in: count / shape[0], also for a deconvolution
        part.weight.uniform_(-bound, bound)
        if part.bias is not None:
            part.bias.zero_()


@torch.no_grad()
def he_normal_(module: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_in), right for ReLU; biases 0 (He et al., 2015)."""
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
