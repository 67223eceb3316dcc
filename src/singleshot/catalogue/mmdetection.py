"""Weights of mmdetection: `configs/ssd/metafile.yml` and `configs/retinanet/metafile.yml` give address and accuracy.

The eight hexadecimal digits at the end of a name are the first of the file's SHA-256 (mmdetection's
`tools/model_converters/publish_model.py` writes them). Sizes are not published.
"""

from __future__ import annotations

from singleshot.catalogue.entry import Weights
from singleshot.catalogue.torchvision import digits

_PLACE = "https://download.openmmlab.com/mmdetection/v2.0/"


def _detector(name: str, path: str, box_ap: float, *, backbone: str, detector: str) -> Weights:
    return Weights(
        name=name,
        trained_on="COCO",
        source="mmdetection, metafile.yml",
        terms="the project is under Apache-2.0",
        backbones=(backbone,),
        detector=detector,
        published=f"COCO AP {box_ap:.1f}",
        url=_PLACE + path,
        sha256=digits(path),
    )


def _retinanet(name: str, folder: str, stamp: str, box_ap: float, backbone: str) -> Weights:
    path = f"retinanet/{folder}/{folder}_{stamp}.pth"
    return _detector(name, path, box_ap, backbone=backbone, detector="retinanet")


WEIGHTS = (
    _detector(
        "ssd300_vgg16-coco-mmdet",
        "ssd/ssd300_coco/ssd300_coco_20210803_015428-d231a06e.pth",
        25.5,
        backbone="vgg16",
        detector="ssd",
    ),
    _detector(
        "ssd512_vgg16-coco-mmdet",
        "ssd/ssd512_coco/ssd512_coco_20210803_022849-0a47a1ca.pth",
        29.5,
        backbone="vgg16",
        detector="ssd",
    ),
    _retinanet("retinanet_r50-coco-mmdet", "retinanet_r50_fpn_1x_coco", "20200130-c2398f9e", 36.5, "resnet50"),
    _retinanet("retinanet_r50-coco-mmdet-2x", "retinanet_r50_fpn_2x_coco", "20200131-fdb43119", 37.4, "resnet50"),
    _retinanet(
        "retinanet_r50-coco-mmdet-3x", "retinanet_r50_fpn_mstrain_3x_coco", "20210718_220633-88476508", 39.5, "resnet50"
    ),
    _retinanet("retinanet_r101-coco-mmdet", "retinanet_r101_fpn_1x_coco", "20200130-7a93545f", 38.5, "resnet101"),
    _retinanet("retinanet_r101-coco-mmdet-2x", "retinanet_r101_fpn_2x_coco", "20200131-5560aee8", 38.9, "resnet101"),
    _retinanet(
        "retinanet_r101-coco-mmdet-3x",
        "retinanet_r101_fpn_mstrain_3x_coco",
        "20210720_214650-7ee888e0",
        41.0,
        "resnet101",
    ),
    _retinanet(
        "retinanet_x101-coco-mmdet", "retinanet_x101_32x4d_fpn_1x_coco", "20200130-5c8b7ec4", 39.9, "resnext101_32x4d"
    ),
    _retinanet(
        "retinanet_x101-coco-mmdet-2x",
        "retinanet_x101_32x4d_fpn_2x_coco",
        "20200131-237fc5e1",
        40.1,
        "resnext101_32x4d",
    ),
    _retinanet(
        "retinanet_x101_64x4d-coco-mmdet",
        "retinanet_x101_64x4d_fpn_1x_coco",
        "20200130-366f5af1",
        41.0,
        "resnext101_64x4d",
    ),
    _retinanet(
        "retinanet_x101_64x4d-coco-mmdet-3x",
        "retinanet_x101_64x4d_fpn_mstrain_3x_coco",
        "20210719_051838-022c2187",
        41.6,
        "resnext101_64x4d",
    ),
)
