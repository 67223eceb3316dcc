"""Weights of smaller projects, each with the page that gives its address."""

from __future__ import annotations

from singleshot.catalogue.entry import Weights, exactly

_SSD_PYTORCH = "README of github.com/amdegroot/ssd.pytorch (no size and no sum published)"
_LUFFICC = "README of github.com/lufficc/SSD (no size and no sum published)"


def _vgg(name: str, url: str, figure: str, trained_on: str, *, source: str) -> Weights:
    return Weights(
        name=name,
        trained_on=trained_on,
        source=source,
        terms="the project is under MIT",
        backbones=("vgg16",),
        detector="ssd",
        published=figure,
        url=url,
    )


_S3 = "https://s3.amazonaws.com/amdegroot-models/"
_RELEASE = "https://github.com/lufficc/SSD/releases/download/1.2/"

# object_detection_oidv4_labelmap.txt of the same project
_OBJECTRON = (
    "Bicycle", "Boot", "Laptop", "Person", "Chair", "Cattle", "Desk", "Cat", "Computer mouse", "Computer monitor",
    "Box", "Mug", "Coffee cup", "Stationary bicycle", "Table", "Bottle", "High heels", "Vehicle", "Footwear", "Dog",
    "Book", "Camera", "Car",
)  # fmt: skip

WEIGHTS = (
    Weights(
        name="vgg16_reducedfc-imagenet",
        trained_on="ImageNet-1k",
        source=_SSD_PYTORCH,
        terms="the project is under MIT",
        backbones=("vgg16",),
        pixels="caffe_bgr",
        url=f"{_S3}vgg16_reducedfc.pth",
    ),
    _vgg(
        "ssd300_vgg16-voc-amdegroot",
        f"{_S3}ssd300_mAP_77.43_v2.pth",
        "VOC2007 77.4",
        "VOC 07+12",
        source=_SSD_PYTORCH,
    ),
    *(
        _vgg(
            f"ssd{side}_vgg16-{short}-lufficc",
            f"{_RELEASE}vgg_ssd{side}_{data}.pth",
            figure,
            trained_on,
            source=_LUFFICC,
        )
        for side, short, data, figure, trained_on in (
            (300, "voc", "voc0712", "VOC2007 77.7", "VOC 07+12"),
            (512, "voc", "voc0712", "VOC2007 80.7", "VOC 07+12"),
            (300, "coco", "coco_trainval35k", "COCO AP 25.2", "COCO"),
            (512, "coco", "coco_trainval35k", "COCO AP 29.0", "COCO"),
        )
    ),
    Weights(
        name="ssd300_mobilenetv2-openimages",
        trained_on="Open Images V4, 23 classes",
        source="github.com/google-ai-edge/mediapipe, third_party/external_files.bzl",
        terms="the project is under Apache-2.0",
        backbones=("mobilenetv2",),
        detector="ssd",
        class_names=_OBJECTRON,
        url=(
            "https://storage.googleapis.com/mediapipe-assets/modules/objectron/"
            "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite?generation=1782183628179438"
        ),
        size=exactly(9_987_728),
        sha256="d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
    ),
)
