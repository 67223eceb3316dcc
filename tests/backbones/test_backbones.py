"""singleshot.backbones: what all backbones promise, by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from singleshot import backbones
from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d
from singleshot.ops.shapes import map_sizes

# torchvision's published parameter counts less the classifier's: 1000 classes of 512, 2048 or 1280 features and biases.
TRUNKS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
    "resnext50_32x4d": 25_028_904 - 2_049_000,
    "resnext101_32x8d": 88_791_336 - 2_049_000,
    "resnext101_64x4d": 83_455_272 - 2_049_000,
    "resnext101_32x4d": 44_177_704 - 2_049_000,  # timm's count; torchvision has no such model
    "resnet18d": 11_195_744,  # timm's counts
    "resnet34d": 21_303_904,
    "resnet50d": 23_527_264,
    "mobilenetv1": 4_231_976 - 1_025_000,  # TensorFlow's count
    "mobilenetv2": 3_504_872 - 1_281_000,
    "mobilenetv3_large": 2_971_952,
    "efficientnet_b0": 5_288_548 - 1_281_000,
    "efficientnet_b1": 7_794_184 - 1_281_000,
    "efficientnet_b2": 9_109_994 - 1_409_000,
    "efficientnet_b3": 12_233_232 - 1_537_000,
    "efficientnet_lite0": 3_371_008,  # timm's counts
    "efficientnet_lite1": 4_135_680,
    "efficientnet_lite2": 4_811_072,
    "efficientnet_lite3": 6_916_096,
    "efficientnet_lite4": 11_725_568,
    "vgg16": 14_714_688 + 4_719_616 + 1_049_600 + 512,
    "vgg16_full": 138_357_544 - 4_097_000 + 512,
    "vgg16_refinedet": 14_714_688 + 4_719_616 + 1_049_600 + 2 * 512,
    "vgg16_bn": 14_714_688 + 2 * 4224 + 4_719_616 + 1_049_600 + 2 * 1024 + 512,
    "vgg16_refinedet_bn": 14_714_688 + 2 * 4224 + 4_719_616 + 1_049_600 + 2 * 1024 + 2 * 512,
}
SMALL = ["vgg16", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d", "mobilenetv2"]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


SCALED = {f"efficientnet_{name}" for name in ("b1", "b2", "b3", "lite1", "lite2", "lite3", "lite4")}
SCALED |= {"resnet34d", "resnet50d"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SCALED else name for name in backbones.BACKBONES],
)
def test_parameters_channels_and_strides(name: str) -> None:
    with torch.device("meta"):
        backbone = backbones.build(name)
        maps = backbone.eval()(torch.empty(1, 3, 300, 300))
    assert parameters(backbone) == TRUNKS[name]
    assert tuple(features.shape[1] for features in maps) == backbone.channels
    assert [features.shape[-1] for features in maps] == [-(-300 // stride) for stride in backbone.strides]
    assert backbone.strides == tuple(sorted(backbone.strides))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(32, 32), (77, 50), (33, 129)])
def test_any_size_gives_maps_of_whole_cells(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = backbones.build(name)
    expected = [tuple(-(-side // stride) for side in size) for stride in backbone.strides]
    assert map_sizes(backbone, size) == expected


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("vgg16", "mobilenetv2", "efficientnet_lite0", "efficientnet_b0", "resnet18d")
        ),
    ],
)
def test_compiles_whole_and_exports(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.build(name).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(pixels)
        compiled = torch.compile(backbone, backend="eager", fullgraph=True)(pixels)
        batch = torch.export.Dim("batch", min=1)
        exported = torch.export.export(backbone, (pixels,), dynamic_shapes=({0: batch},)).module()(pixels)
        alone = backbone(pixels[1:])
    for a, b, c, d in zip(expected, compiled, exported, alone, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)
        torch.testing.assert_close(a[1:], d, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "vgg16_bn"])
def test_trains_in_any_norm_and_memory_format(name: str) -> None:
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 64, 64)
    outputs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        backbone = backbones.build(name).to(memory_format=layout).train()
        maps = backbone(pixels.to(memory_format=layout))
        sum(features.square().mean() for features in maps).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
        outputs.append([features.detach() for features in maps])
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2"])
def test_frozen_norms(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.build(name, norm="frozen").train()
    norms = [part for part in backbone.modules() if isinstance(part, BatchNorm2d)]
    assert norms
    assert not any(part.training or part.weight.requires_grad or part.bias.requires_grad for part in norms)
    names = {key for key, _ in backbone.named_parameters()}
    assert names == {key for key, _ in backbones.build(name).named_parameters()}  # never buffers
    pixels = torch.randn(2, 3, 64, 64)
    for got, alone in zip(backbone(pixels), backbone(pixels[:1]), strict=True):
        torch.testing.assert_close(got[:1], alone, rtol=1e-4, atol=1e-4)
    assert all(part.num_batches_tracked == 0 for part in norms if part.num_batches_tracked is not None)


def test_eval_norms_still_learn_scale_and_shift() -> None:
    backbone = backbones.build("resnet18", norm="eval").train()
    norms = [part for part in backbone.modules() if isinstance(part, BatchNorm2d)]
    assert all(part.weight.requires_grad and not part.training for part in norms)


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "mobilenetv2"])
def test_frozen_stages_grow_from_the_input(name: str) -> None:
    with torch.device("meta"):
        stages = len(backbones.build(name).stages())
        trainable = []
        for frozen in range(stages + 1):
            backbone = backbones.build(name, frozen_stages=frozen).train()
            fixed = [part for stage in backbone.stages()[:frozen] for module in stage for part in module.modules()]
            assert not any(part.training for part in fixed if isinstance(part, BatchNorm2d))
            trainable.append(sum(p.numel() for p in backbone.parameters() if p.requires_grad))
    assert trainable == sorted(set(trainable), reverse=True)
    assert trainable[0] == TRUNKS[name]
    assert trainable[-1] == (512 if name == "vgg16" else 0)  # the L2 scale is no part of the trunk
    with pytest.raises(UserError, match="frozen_stages=9"):
        backbones.build(name, frozen_stages=9)


def test_unknown_names_are_explained() -> None:
    with pytest.raises(UserError, match=r"resnet51.*vgg16.*did you mean resnet50"):
        backbones.build("resnet51")
    with pytest.raises(UserError, match=r"MobileNetV2'.*mobilenetv2"):
        backbones.build("MobileNetV2")
    with pytest.raises(UserError, match="norm 'group'"):
        backbones.build("resnet18", norm="group")
