"""Weights of torchvision 0.29.1: its `torchvision/models/*.py` give address, size and accuracy of each.

The eight hexadecimal digits at the end of a name are the first of the file's SHA-256: torchvision checks them too
(`check_hash=True` of `torch.hub`).
"""

from __future__ import annotations

import re

from singleshot.catalogue.entry import Weights, mebibytes

_PLACE = "https://download.pytorch.org/models/"
_TERMS = (
    "code BSD-3-Clause; torchvision's README says that the weights may have terms of their own, from the data that "
    "they were trained on, and that it is up to you to find out whether you may use them"
)


def _backbone(name: str, file: str, size: float, top1: float, *backbones: str) -> Weights:
    return Weights(
        name=name,
        trained_on="ImageNet-1k",
        source="torchvision 0.29.1",
        terms=_TERMS,
        backbones=backbones,
        published=f"ImageNet top-1 {top1:.1f}",
        url=_PLACE + file,
        size=mebibytes(size),
        sha256=digits(file),
    )


def _detector(name: str, file: str, size: float, box_ap: float, *, backbone: str, detector: str) -> Weights:
    return Weights(
        name=name,
        trained_on="COCO",
        source="torchvision 0.29.1",
        terms=_TERMS,
        backbones=(backbone,),
        detector=detector,
        published=f"COCO val2017 AP {box_ap:.1f}",
        url=_PLACE + file,
        size=mebibytes(size),
        sha256=digits(file),
    )


def digits(file: str) -> str:
    """The beginning of the SHA-256 that stands at the end of a file's name."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", file)
    return found[1] if found else ""


_VGG = ("vgg16", "vgg16_full", "vgg16_refinedet")

# Of one backbone the first is its `imagenet`. Those of 2021's longer recipe (`-v2`) classify better.
WEIGHTS = (
    _backbone("mobilenetv2-imagenet", "mobilenet_v2-b0353104.pth", 13.555, 71.878, "mobilenetv2"),
    _backbone("mobilenetv2-imagenet-v2", "mobilenet_v2-7ebf99e0.pth", 13.598, 72.154, "mobilenetv2"),
    _backbone("mobilenetv3_large-imagenet", "mobilenet_v3_large-8738ca79.pth", 21.114, 74.042, "mobilenetv3_large"),
    _backbone("mobilenetv3_large-imagenet-v2", "mobilenet_v3_large-5c1a4163.pth", 21.107, 75.274, "mobilenetv3_large"),
    _backbone("efficientnet_b0-imagenet", "efficientnet_b0_rwightman-7f5810bc.pth", 20.451, 77.692, "efficientnet_b0"),
    _backbone("efficientnet_b1-imagenet", "efficientnet_b1_rwightman-bac287d4.pth", 30.134, 78.642, "efficientnet_b1"),
    _backbone("efficientnet_b1-imagenet-v2", "efficientnet_b1-c27df63c.pth", 30.136, 79.838, "efficientnet_b1"),
    _backbone("efficientnet_b2-imagenet", "efficientnet_b2_rwightman-c35c1473.pth", 35.174, 80.608, "efficientnet_b2"),
    _backbone("efficientnet_b3-imagenet", "efficientnet_b3_rwightman-b3899882.pth", 47.184, 82.008, "efficientnet_b3"),
    _backbone("mobilenetv3_large-imagenet", "mobilenet_v3_large-8738ca79.pth", 21.114, 74.042, "mobilenetv3_large"),
    _backbone("mobilenetv3_large-imagenet-v2", "mobilenet_v3_large-5c1a4163.pth", 21.107, 75.274, "mobilenetv3_large"),
    _backbone("efficientnet_b0-imagenet", "efficientnet_b0_rwightman-7f5810bc.pth", 20.451, 77.692, "efficientnet_b0"),
    _backbone("efficientnet_b1-imagenet", "efficientnet_b1_rwightman-bac287d4.pth", 30.134, 78.642, "efficientnet_b1"),
    _backbone("efficientnet_b1-imagenet-v2", "efficientnet_b1-c27df63c.pth", 30.136, 79.838, "efficientnet_b1"),
    _backbone("efficientnet_b2-imagenet", "efficientnet_b2_rwightman-c35c1473.pth", 35.174, 80.608, "efficientnet_b2"),
    _backbone("efficientnet_b3-imagenet", "efficientnet_b3_rwightman-b3899882.pth", 47.184, 82.008, "efficientnet_b3"),
    _backbone("resnet18-imagenet", "resnet18-f37072fd.pth", 44.661, 69.758, "resnet18"),
    _backbone("resnet34-imagenet", "resnet34-b627a593.pth", 83.275, 73.314, "resnet34"),
    _backbone("resnet50-imagenet", "resnet50-0676ba61.pth", 97.781, 76.130, "resnet50"),
    _backbone("resnet50-imagenet-v2", "resnet50-11ad3fa6.pth", 97.79, 80.858, "resnet50"),
    _backbone("resnet101-imagenet", "resnet101-63fe2227.pth", 170.511, 77.374, "resnet101"),
    _backbone("resnet101-imagenet-v2", "resnet101-cd907fc2.pth", 170.53, 81.886, "resnet101"),
    _backbone("resnet152-imagenet", "resnet152-394f9c45.pth", 230.434, 78.312, "resnet152"),
    _backbone("resnet152-imagenet-v2", "resnet152-f82ba261.pth", 230.474, 82.284, "resnet152"),
    _backbone("resnext50_32x4d-imagenet", "resnext50_32x4d-7cdf4587.pth", 95.789, 77.618, "resnext50_32x4d"),
    _backbone("resnext50_32x4d-imagenet-v2", "resnext50_32x4d-1a0047aa.pth", 95.833, 81.198, "resnext50_32x4d"),
    _backbone("resnext101_32x8d-imagenet", "resnext101_32x8d-8ba56ff5.pth", 339.586, 79.312, "resnext101_32x8d"),
    _backbone("resnext101_32x8d-imagenet-v2", "resnext101_32x8d-110c445d.pth", 339.673, 82.834, "resnext101_32x8d"),
    _backbone("resnext101_64x4d-imagenet", "resnext101_64x4d-173b62eb.pth", 319.318, 83.246, "resnext101_64x4d"),
    _backbone("vgg16-imagenet", "vgg16-397923af.pth", 527.796, 71.592, *_VGG),
    _backbone("vgg16_bn-imagenet", "vgg16_bn-6c64b313.pth", 527.866, 73.360, "vgg16_bn", "vgg16_refinedet_bn"),
    _detector(
        "ssd300_vgg16-coco",
        "ssd300_vgg16_coco-b556d3b4.pth",
        135.988,
        25.1,
        backbone="vgg16",
        detector="ssd",
    ),
    _detector(
        "retinanet_r50-coco",
        "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        130.267,
        36.4,
        backbone="resnet50",
        detector="retinanet",
    ),
    _detector(
        "retinanet_r50_v2-coco",
        "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
        146.037,
        41.5,
        backbone="resnet50",
        detector="retinanet",
    ),
)
