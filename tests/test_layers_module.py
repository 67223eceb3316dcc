"""singleshot.layers: L2 scaling, batch norm that can be frozen, initialisers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import profile

from singleshot.layers import (
    BatchNorm2d,
    ConvNormAct,
    GroupNorm,
    L2Scale,
    StridedConv2d,
    conv_norm,
    fan_in_uniform_,
    he_normal_,
    same_padding,
)


def test_l2_scale_by_hand() -> None:
    layer = L2Scale(2, 20.0)
    features = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(layer(features).flatten(), torch.tensor([12.0, 16.0]))


def test_l2_scale_equals_a_loop_over_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, 4, generator=generator)
    layer = L2Scale(5, 1.0)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 6.0))
    expected = torch.empty_like(features)
    for image in range(2):
        for row in range(3):
            for column in range(4):
                cell = features[image, :, row, column]
                expected[image, :, row, column] = (
                    cell / (sum(v * v for v in cell.tolist()) ** 0.5) * layer.weight.detach()
                )
    torch.testing.assert_close(layer(features), expected)


def test_l2_scale_of_zeros_is_zero_with_finite_gradient() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    out = L2Scale(4, 20.0)(features)
    out.sum().backward()
    assert out.eq(0).all()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_l2_scale_sums_in_float32(dtype: torch.dtype) -> None:
    features = torch.full((1, 512, 1, 1), 200.0, dtype=dtype)  # the sum of squares, 2e7, is infinite in float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = L2Scale(512, 20.0)(features)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), torch.full_like(out.float(), 20 / 512**0.5), rtol=1e-2, atol=0)
    grown = torch.cat([torch.full((1, 1, 1, 1), 16.0), torch.full((1, 256, 1, 1), 0.5)], 1)  # 16^2 + 256 * 0.25
    exact = 16 / (256 + 64) ** 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert L2Scale(257, 1.0)(grown)[0, 0].item() == pytest.approx(exact, rel=1e-6)


def test_l2_scale_keeps_channels_last() -> None:
    features = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert L2Scale(8, 1.0)(features).is_contiguous(memory_format=torch.channels_last)


def test_unfrozen_batch_norm_is_pytorchs() -> None:
    features = torch.randn(4, 3, 5, 5)
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(features), theirs(features))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("images", [1, 2])
def test_batch_norm_of_one_cell_uses_the_running_statistics(images: int) -> None:
    layer = BatchNorm2d(3)
    layer.running_mean = torch.tensor([1.0, 2.0, 3.0])
    layer.running_var = torch.tensor([4.0, 4.0, 9.0])
    before = copy.deepcopy(layer.state_dict())
    cell = torch.randn(images, 3, 1, 1, requires_grad=True)
    out = layer(cell)
    assert torch.equal(out, copy.deepcopy(layer).eval()(cell))
    out.square().sum().backward()
    assert cell.grad is not None
    assert cell.grad.abs().max() < 10  # no division by the spread of two values
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    layer(torch.randn(1, 3, 1, 2))  # two cells are statistics, as in PyTorch
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("affine", [True, False])
def test_frozen_batch_norm_ignores_the_batch(affine: bool) -> None:
    layer = BatchNorm2d(3)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(1.0)
    before = copy.deepcopy(layer.state_dict())
    layer.freeze(affine=affine)
    parent = nn.Sequential(layer).train()
    features = torch.randn(4, 3, 5, 5) * 7 + 3
    torch.testing.assert_close(parent(features), features * (2 / (1 + layer.eps) ** 0.5) + 1)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    assert layer.weight.requires_grad is not affine
    assert layer.bias.requires_grad is not affine
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert copy.deepcopy(parent).train()[0].training is False


@pytest.mark.parametrize("kind", ["frozen", "scale and shift learn", "keeps its statistics"])
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(6, 6, 3, 1, 1), lambda: StridedConv2d(6, 6, 3, 2, 1, groups=6)])
def test_a_frozen_norm_goes_into_the_convolution(make: Callable[[], nn.Conv2d], kind: str) -> None:
    """Values and all gradients are those of one after the other, and the norm itself does not run."""
    torch.manual_seed(0)
    convolution, norm = make().double(), BatchNorm2d(6).double()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert values is not None
            values.copy_(torch.rand(6) + 0.5)
    features = torch.randn(2, 6, 7, 7, dtype=torch.float64, requires_grad=True)
    wanted = [features, *(p for p in (*convolution.parameters(), *norm.parameters()))]

    def gradients(result: Tensor) -> list[Tensor | None]:
        return list(torch.autograd.grad(result.square().sum(), wanted, allow_unused=True))

    if kind == "keeps its statistics":  # as `keep_norm_statistics` has it
        norm.eval()
    else:
        norm.freeze(affine=kind == "frozen")
    wanted = [one for one in wanted if one.requires_grad]
    assert len(wanted) == (3 if kind == "frozen" else 5)
    separate = norm(convolution(features))
    with profile() as seen:
        together = conv_norm(convolution, norm, features)
    assert not any("batch_norm" in event.key for event in seen.key_averages())
    torch.testing.assert_close(together, separate)
    for one, other in zip(gradients(together), gradients(separate), strict=True):
        torch.testing.assert_close(one, other)


def test_a_norm_that_follows_the_batches_runs() -> None:
    torch.manual_seed(0)
    block = ConvNormAct(3, 8, norm=True, activation=None).train()
    pixels = torch.randn(4, 3, 9, 9) + 2
    assert block(pixels).mean((0, 2, 3)).abs().max() < 1e-5
    assert block[1].num_batches_tracked == 1


def test_conv_norm_act_keys_and_size() -> None:
    plain = ConvNormAct(3, 8, 3, stride=2)
    normed = ConvNormAct(3, 8, 3, dilation=6, norm=True, activation=None)
    assert list(plain.state_dict()) == ["0.weight", "0.bias"]
    assert {key.split(".")[0] for key in normed.state_dict()} == {"0", "1"}
    assert "0.bias" not in normed.state_dict()
    pixels = torch.randn(2, 3, 9, 9)
    assert plain(pixels).shape == (2, 8, 5, 5)
    assert plain(pixels).min() >= 0
    assert normed(pixels).shape == (2, 8, 9, 9)


def test_strided_depthwise_trains_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = StridedConv2d(8, 8, 3, 2, 1, groups=8)
    features = torch.randn(2, 8, 9, 9)
    exact = layer(features)
    assert torch.equal(exact, nn.Conv2d.forward(layer, features))

    def autocast(features: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result: Tensor = layer(features)
        return result

    assert torch.equal(autocast(features), exact.bfloat16())  # rounded once, at the end
    compiled = torch.compile(autocast, backend="eager", fullgraph=True)(features)
    assert torch.equal(compiled, exact.bfloat16())
    assert autocast(features.bfloat16()).dtype == torch.bfloat16
    assert layer.eval()(features).dtype == torch.float32
    assert isinstance(ConvNormAct(8, 8, stride=2, groups=8)[0], StridedConv2d)
    assert type(ConvNormAct(8, 8, stride=1, groups=8)[0]) is nn.Conv2d


def _weight(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return layer.weight.detach()


def test_fan_in_uniform_reaches_but_does_not_pass_its_bound() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 16, 3)
    fan_in_uniform_(layer)
    bound = (3 / (64 * 9)) ** 0.5
    assert _weight(layer).abs().max() <= bound
    assert _weight(layer).abs().max() > 0.99 * bound
    assert _weight(layer).var().item() == pytest.approx(1 / (64 * 9), rel=0.05)  # what keeps the variance of the input
    assert layer.bias is not None
    assert layer.bias.eq(0).all()
    deconvolution = nn.ConvTranspose2d(8, 32, 2, 2)
    fan_in_uniform_(deconvolution)
    assert _weight(deconvolution).abs().max() <= (3 / (32 * 4)) ** 0.5  # Caffe counts the second dimension


def test_he_normal_keeps_the_second_moment_through_relu() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*(ConvNormAct(128, 128, 3) for _ in range(4)))
    he_normal_(network)
    first = network[0][0]
    assert _weight(first).std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert first.bias.eq(0).all()
    pixels = torch.randn(2, 128, 24, 24)
    moment = network(pixels)[:, :, 6:-6, 6:-6].square().mean().item()
    assert moment == pytest.approx(1, abs=0.3)  # E[x^2] doubles in each convolution and halves in each ReLU


def test_group_norm_is_exact_whatever_autocast_does() -> None:
    layer, plain = GroupNorm(4, 8), nn.GroupNorm(4, 8)
    features = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0)) * 100 + 1000
    torch.testing.assert_close(layer(features), plain(features))
    rough = features.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(rough)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain(rough.float()).bfloat16())


@pytest.mark.parametrize("width", [1, 2])
def test_strided_convolution_on_narrow_maps_has_right_gradients_in_bf16(width: int) -> None:
    """torch's own gradient of the weights is garbage there for maps one cell wide, in about every second trial."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        layer = StridedConv2d(32, 32, 3, 2, 1)
        features = torch.randn(2, 32, 4, width, generator=generator)
        gradients = []
        for enabled in (False, True):
            layer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                output = layer(features)
            output.float().square().sum().backward()
            assert layer.weight.grad is not None
            gradients.append(layer.weight.grad.clone())
        assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()


def same_by_hand(features: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's SAME, as its documentation says it: ceil(n / stride) cells, the odd zero after."""
    zeros = []
    for size, kernel in zip(features.shape[-2:], weight.shape[-2:], strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        zeros.append((total // 2, total - total // 2))
    padded = F.pad(features, (*zeros[1], *zeros[0]))
    return F.conv2d(padded, weight, stride=stride, groups=groups)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(300, 3, 2, (0, 1)), (19, 3, 2, (1, 1)), (2, 3, 2, (0, 1)), (1, 3, 2, (1, 1)), (10, 5, 2, (1, 2)),
     (4, 1, 2, (0, 0)), (7, 3, 3, (1, 1)), (8, 3, 3, (0, 1)), (5, 3, 1, (1, 1))],
)  # fmt: skip
def test_tensorflows_zeros_by_hand(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("shape", [(10, 10), (9, 10), (10, 7), (7, 7), (1, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 4), (5, 1)])
def test_same_padding_with_a_stride_equals_tensorflows(shape: tuple[int, int], kernel: int, groups: int) -> None:
    torch.manual_seed(0)
    block = ConvNormAct(4, 8, kernel, stride=2, padding="same", groups=groups, norm=True, activation=None).eval()
    convolution, norm = block[0], block[1]
    assert isinstance(norm, BatchNorm2d)
    features = torch.randn(2, 4, *shape)
    expected = same_by_hand(features, convolution.get_parameter("weight"), 2, groups)
    torch.testing.assert_close(convolution(features), expected)
    striped = features.contiguous(memory_format=torch.channels_last)
    found = convolution(striped)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    norm.running_mean = torch.randn(8)
    plain = block(features)
    norm.freeze()
    torch.testing.assert_close(block(features), plain)  # folded into the convolution


def test_same_padding_trains_under_autocast_and_is_exported() -> None:
    torch.manual_seed(0)
    block = ConvNormAct(4, 4, 3, stride=2, padding="same", groups=4, norm=True)
    features = torch.randn(2, 4, 6, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block(features)
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert features.grad is not None
    block.eval()
    graph = torch.export.export(block, (features.detach(),)).module()
    torch.testing.assert_close(graph(features), block(features))


def test_at_stride_1_same_padding_is_symmetric() -> None:
    assert type(ConvNormAct(4, 4, padding="same")[0]) is nn.Conv2d
    assert ConvNormAct(4, 4, padding="same")[0].padding == (1, 1)
