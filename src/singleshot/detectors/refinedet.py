"""RefineDet: Single-Shot Refinement Neural Network for Object Detection (Zhang et al., 2018, arXiv 1711.06897)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from torch import nn

from singleshot import backbones
from singleshot.anchors import AnchorGenerator
from singleshot.coders import DeltaCoder
from singleshot.detectors import builder_arguments
from singleshot.detectors.classes import Classes
from singleshot.detectors.detector import Detector
from singleshot.detectors.registry import VARIANTS, Variant, register
from singleshot.errors import UserError
from singleshot.heads import Branch, Head
from singleshot.losses.classification import ClassificationLoss
from singleshot.losses.criterion import Criterion
from singleshot.matchers import IoUMatcher
from singleshot.necks import FPN, BottleneckBlocks, BottleneckExtra, Extra, ExtraLevels, SameMaps, TransferConnection
from singleshot.outputs.iou import IoUHead
from singleshot.outputs.output import ExtraOutput, loss_terms
from singleshot.postprocess import ClassScores, PerClassPostprocess
from singleshot.preprocess import Pixels, Stretch
from singleshot.refiner import OUTPUTS, AnchorRefiner

Neck = Literal["tcb", "fpn", "none"]

_VGG = {"vgg16": "vgg16_refinedet", "vgg16_bn": "vgg16_refinedet_bn"}  # pool5 and fc6 differ from SSD's


@register
def refinedet(
    *,
    num_classes: int,
    backbone: str = "vgg16",
    image_size: int | Sequence[int] = 320,
    backbone_weights: str | PathLike[str] | None = None,
    pixels: str | Sequence[Any] | Pixels | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    norm: str = "train",
    frozen_stages: int = 0,
    cascade: bool = True,
    theta: float = 0.99,
    neck: Neck = "tcb",
    channels: int = 256,
    neck_norm: bool | None = None,
    attention: Literal["se"] | None = None,
    head_blocks: bool | None = None,
    anchor_sizes: Sequence[float] | None = None,
    aspect_ratios: Sequence[float] = (1.0, 0.5, 2.0),
    arm_iou: Sequence[float] = (0.5, 0.5),
    match_iou: float | Sequence[float] = 0.5,
    ignore_crowd: bool = False,
    classification: ClassificationLoss | Mapping[str, Any] | None = None,
    negatives: float = 3.0,
    box_loss: builder_arguments.BoxLoss = "smooth_l1",
    beta: float = 1.0,
    box_weight: float = 1.0,
    iou_head: bool | IoUHead | Mapping[str, Any] = False,
    outputs: builder_arguments.Outputs = (),
    threshold: float = 0.01,
    nms: float = 0.45,
    candidates: int | None = 1000,
    candidates_of_image: int | None = None,
    detections: int = 500,
    soft_nms: float | None = None,
    vote: float | None = None,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
) -> Detector:
    """RefineDet320, RefineDet512, and the same design on any backbone and at any size of whole multiples of 64 pixels.

    Args:
        num_classes: Number of classes, without the background.
        backbone: Name of the trunk (section 4), such as vgg16, resnet101, mobilenetv2 or timm/NAME. Default vgg16.
        image_size: Pixels of the input, whole multiples of 64: one side, or [height, width]. Default 320.
        backbone_weights: File with the backbone's weights, or imagenet: fetched if not here. Default none: random.
        pixels: Pixel values of the backbone: imagenet_rgb, caffe_bgr, or [mean, std, order]. Default none: those that
            its weights expect.
        backbone_options: Further arguments of the backbone, by name. Default none.
        norm: Batch norm of the backbone: train, eval (fixed statistics) or frozen (all fixed). Default train.
        frozen_stages: Number of first stages of the backbone that are not trained. Default 0.
        cascade: False: no first module (ARM); predictions start from the regular anchors (Table 2). Default true.
        theta: Background probability above which an anchor is left out; 1: no filter (section 3, Table 2). Default
            0.99.
        neck: Between the maps and the second module: tcb (section 3), fpn, or none (Table 2). Default tcb.
        channels: Width of the neck, in channels. Default 256.
        neck_norm: Batch norm in the transfer connection blocks. Default none: as the backbone has it.
        attention: se: squeeze and excitation weighs the channels that the neck transfers. Default none.
        head_blocks: Bottlenecks before the heads, as in the authors' ResNet-101. Default none: only with resnet101.
        anchor_sizes: Side of the anchors of each level, in pixels (section 4). Default none: 4 x stride.
        aspect_ratios: Height / width of the anchors (section 4). Default [1, 0.5, 2].
        arm_iou: Two IoUs for the first module: an anchor is positive from the first on, negative below the second. The
            first author advises [0.7, 0.3]. Default [0.5, 0.5].
        match_iou: The same for the second module, as two numbers or one for both (section 4). Default 0.5.
        ignore_crowd: Leave anchors that lie at least half inside a crowd region out of the loss. Default false.
        classification: Classification loss of the second module, as an object or as {type: NAME, ...}
            (`singleshot.losses`). Default none: `SoftmaxLoss`.
        negatives: Hard negatives for each positive, in both modules (section 4). Default 3.
        box_loss: Loss of the boxes of the second module: smooth_l1, l1 or giou. Default smooth_l1.
        beta: Difference at which its smooth L1 turns from quadratic to linear. Default 1.
        box_weight: Weight of the box losses of both modules (1 in the paper's equation). Default 1.
        iou_head: IoU-aware prediction: true, or choices such as {alpha: 0.4} (`IoUHead`). Default false.
        outputs: Further outputs, such as [Centreness] (`singleshot.outputs`). Default [].
        threshold: Score above which a box is a candidate (authors' script). Default 0.01.
        nms: IoU above which the worse of two boxes of a class is dropped (section 4, Inference). Default 0.45.
        candidates: Best boxes of each class before NMS (authors' script); none: all. Default 1000.
        candidates_of_image: Best boxes of all classes together before NMS, 400 in the paper (section 4,
            Inference). Default none: no limit.
        detections: Boxes to keep per image; 200 in the paper, 500 in the authors' script. Default 500.
        soft_nms: IoU of linear soft-NMS, in place of `nms`; 0.3 in the published COCO figures. Default none.
        vote: Spread of box voting, such as 0.05: a box is averaged with the candidates near it. Default none.
        class_names: Names of the classes. Default none: class 0, class 1 ...
        category_ids: Ids of the classes in results. Default none: 0, 1 ...

    Returns:
        The detector. All weights are random, except those from `backbone_weights`.

    Raises:
        UserError: An argument is out of range or contradicts another one, or weights do not fit.
    """
    builder_arguments.at_least(1, channels=channels)
    builder_arguments.weights(box_weight=box_weight)
    builder_arguments.ranking(
        threshold=threshold, nms=nms, candidates=candidates, candidates_of_image=candidates_of_image,
        detections=detections, soft_nms=soft_nms, vote=vote,
    )  # fmt: skip
    if not cascade and (theta not in (0.99, 1) or tuple(arm_iou) != (0.5, 0.5)):
        raise UserError("theta and arm_iou belong to the first module, which cascade=False leaves out")
    classes = Classes.of(num_classes, class_names, category_ids)
    trunk = backbones.build(
        _VGG.get(backbone, backbone),
        norm=norm,
        frozen_stages=frozen_stages,
        weights=backbone_weights,
        options=backbone_options,
    )
    maps = ExtraLevels(trunk, _extras(trunk))  # section 4, base network
    size = _checked(builder_arguments.two_sides(image_size), maps.strides)
    sizes = [(side,) for side in builder_arguments.level_sizes(anchor_sizes, maps.strides)]
    # By default ratios 1, 2, 1/2 of width to height, centred in the cells (section 4, authors' script).
    anchors = AnchorGenerator(maps.strides, sizes, aspect_ratios, convention="centre")
    coder = DeltaCoder((0.1, 0.2))  # authors' script, in both modules
    blocks = backbone == "resnet101" if head_blocks is None else head_blocks
    # Section 4, hard negative mining, in both modules.
    loss = builder_arguments.mining_loss(classification, negatives, elsewhere=cascade)
    positive, negative = builder_arguments.overlaps(match_iou=match_iou)
    extra = builder_arguments.extra_outputs(outputs, iou_head)
    scores = ClassScores(loss, extra)
    if neck != "tcb" and (neck_norm is not None or attention is not None):
        raise UserError(f"neck_norm and attention belong to the transfer connection blocks, neck='tcb'; got {neck!r}")
    normed = trunk.has_norm if neck_norm is None else neck_norm
    transfer = _neck(neck, maps, channels, normed, attention)
    refiner = None
    if cascade:  # section 3, anchor refinement module
        head = _head(maps.channels, anchors, [Branch(outputs) for outputs in OUTPUTS], blocks)
        refiner = AnchorRefiner(
            head, coder, theta=theta, iou=builder_arguments.overlaps(arm_iou=arm_iou), negatives=negatives,
            box_weight=box_weight, ignore_crowd=ignore_crowd,
        )  # fmt: skip
    return Detector(
        preprocess=Stretch(size, builder_arguments.pixel_values(pixels, trunk)),
        backbone=maps,
        refiner=refiner,
        neck=transfer,
        head=_head(transfer.channels, anchors, [  # section 3, object detection module
            Branch({"class_logits": loss.num_logits(num_classes)}, {"class_logits": loss.initial_bias}),
            Branch({"box_deltas": 4}),
        ], blocks, extra),
        anchors=anchors,
        criterion=Criterion(
            IoUMatcher(positive, negative, ignore_crowd=ignore_crowd),
            {  # equation 1
                "classification": loss,
                "box": builder_arguments.box_loss(box_loss, beta),
                **loss_terms(extra),
            },
            coder,
            weights={"box": box_weight},
        ),
        postprocess=PerClassPostprocess(  # section 4, inference
            coder, scores, threshold=threshold, candidates=candidates, candidates_of_image=candidates_of_image,
            iou=nms, soft=soft_nms, detections=detections, vote=vote,
        ),
        classes=classes,
    )  # fmt: skip


def _extras(trunk: backbones.Backbone) -> list[Extra | BottleneckExtra]:
    """Levels down to stride 64: conv6 on VGG-16, res6 on ResNets, convolutions with norm elsewhere."""
    missing = max(0, 4 - len(trunk.strides))
    if isinstance(trunk, backbones.ResNet):
        return [BottleneckExtra(128, stride_first=trunk.stride_first)] * missing
    return [Extra(256, 512, norm=(trunk.has_norm, trunk.has_norm))] * missing


def _checked(size: tuple[int, int], strides: Sequence[int]) -> tuple[int, int]:
    coarsest = strides[-1]
    if any(side % coarsest for side in size):
        raise UserError(
            f"image_size must be whole multiples of {coarsest} pixels, the stride of the coarsest map, so that every "
            f"map is twice as large as the next, got {size[0]}x{size[1]}"
        )
    return size


def _neck(
    name: Neck, maps: ExtraLevels, channels: int, normed: bool, attention: str | None
) -> TransferConnection | FPN | SameMaps:
    if name == "tcb":
        return TransferConnection(maps.channels, maps.strides, channels, norm=normed, attention=attention)
    if name == "fpn":
        return FPN(maps.channels, maps.strides, channels, coarser=False)
    return SameMaps(maps.channels)


def _head(
    channels: Sequence[int],
    anchors: AnchorGenerator,
    branches: Sequence[Branch],
    blocks: bool,
    outputs: Sequence[ExtraOutput] = (),
) -> nn.Module:
    if not blocks:
        return Head(channels, anchors.per_location, branches, outputs=outputs)
    before = BottleneckBlocks(channels)
    return nn.Sequential(before, Head(before.channels, anchors.per_location, branches, outputs=outputs))


_VOC07 = "VOC2007 test mAP (trained on 07+12)"
for _side, _voc, _coco in ((320, 80.0, 29.4), (512, 81.8, 33.0)):
    VARIANTS[f"refinedet{_side}_vgg16"] = Variant(
        "refinedet", {"image_size": _side}, f"{_VOC07} {_voc}, COCO test-dev AP {_coco} (RefineDet paper, Tables 1, 3)"
    )
for _side, _coco in ((320, 32.0), (512, 36.4)):
    VARIANTS[f"refinedet{_side}_r101"] = Variant(
        "refinedet",
        {"backbone": "resnet101", "image_size": _side},
        f"COCO test-dev AP {_coco} (RefineDet paper, Table 3)",
    )
VARIANTS["refinedet320_mobilenetv2"] = Variant("refinedet", {"backbone": "mobilenetv2"})
