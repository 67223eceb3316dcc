"""SSD: Single Shot MultiBox Detector (Liu et al., 2016, arXiv 1512.02325)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from torch import nn

from singleshot import backbones
from singleshot.anchors import BoxGroup, BoxShapes, Clip, DefaultBoxes
from singleshot.coders import DeltaCoder
from singleshot.detectors import builder_arguments, ssd_boxes
from singleshot.detectors.classes import Classes
from singleshot.detectors.detector import Detector
from singleshot.detectors.registry import VARIANTS, Variant, register
from singleshot.errors import UserError
from singleshot.heads import Branch, Head
from singleshot.layers import ACTIVATIONS, Activation, ConvNormAct
from singleshot.losses.classification import ClassificationLoss
from singleshot.losses.criterion import Criterion
from singleshot.matchers import IoUMatcher
from singleshot.necks import Extra, ExtraLevels, derived_extras, extra_sizes, ssd300_extras, ssd512_extras
from singleshot.ops.shapes import map_sizes
from singleshot.outputs.iou import IoUHead
from singleshot.outputs.output import loss_terms
from singleshot.postprocess import ClassScores, PerClassPostprocess, PerLevelPostprocess
from singleshot.preprocess import Pixels, Stretch


@register
def ssd(
    *,
    num_classes: int,
    backbone: str = "vgg16",
    image_size: int | Sequence[int] = 300,
    backbone_weights: str | PathLike[str] | None = None,
    pixels: str | Sequence[Any] | Pixels | None = None,
    atrous: bool = True,
    backbone_options: Mapping[str, Any] | None = None,
    norm: str = "train",
    frozen_stages: int = 0,
    finest_stride: int = 1,
    extra_channels: Sequence[int] | None = None,
    separable_extras: bool = False,
    head_kernel: Literal[1, 3] = 3,
    separable_heads: bool = False,
    activation: Activation = "relu",
    source_maps: Sequence[int] | None = None,
    stack_boxes: bool = True,
    box_sizes: str | Sequence[float] = "voc",
    box_centres: Literal["authors", "paper"] = "authors",
    smallest_scale: float | None = None,
    largest_scale: float | None = None,
    aspect_ratios: Sequence[float] = (2.0, 3.0),
    box_shapes: Sequence[Sequence[Sequence[float]]] | None = None,
    clip: Clip = False,
    boundary_boxes: bool = True,
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
    candidates: int | None = 400,
    candidates_of_image: int | None = None,
    candidates_of_level: int | None = None,
    clip_before_nms: bool = False,
    detections: int = 200,
    vote: float | None = None,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
) -> Detector:
    """SSD300, SSD512, and the same design on any backbone and at any input size.

    Args:
        num_classes: Number of classes, without the background.
        backbone: Name of the trunk (section 2.1), such as vgg16, resnet50, mobilenetv2 or timm/NAME. Default vgg16.
        image_size: Pixels of the input: one side, or [height, width] (section 3). Default 300.
        backbone_weights: File with the backbone's weights, or imagenet: fetched if not here. Default none: random.
        pixels: Pixel values of the backbone: imagenet_rgb, caffe_bgr, or [mean, std, order]. Default none: those that
            its weights expect.
        atrous: False: the full VGG-16, with conv5_3 as a further map (section 3.2, Table 2). Default true.
        backbone_options: Further arguments of the backbone, by name. Default none.
        norm: Batch norm of the backbone: train, eval (fixed statistics) or frozen (all fixed). Default train.
        frozen_stages: Number of first stages of the backbone that are not trained. Default 0.
        finest_stride: Maps of the backbone with a smaller stride, in pixels, are not used. Default 1: all are.
        extra_channels: Channels of each extra level; as many are made, and each halves the map. Default none: as
            published, or down to one cell.
        separable_extras: Separable convolutions in the extra levels (SSDLite, MobileNetV2 section 6.2). Default false.
        head_kernel: Kernel of the predicting convolutions, 1 or 3 (section 2.1). Default 3.
        separable_heads: A depthwise 3x3 convolution before each predicting one, which is then 1x1 (SSDLite). Default
            false.
        activation: Of the extra levels and of separable heads: relu or relu6. Default relu.
        source_maps: Indices of the maps to use, with re-adjusted tiling (Table 3). Default none: all maps.
        stack_boxes: False: with `source_maps`, boxes of unused maps are left out too. Default true.
        box_sizes: Sides of the default boxes: voc, coco, or one for each map and one more, in pixels (section 2.2).
            Default voc.
        box_centres: Centres of the default boxes at 300 pixels on VGG-16: authors (steps of their scripts) or paper
            (section 2.2). Everywhere else both are the same. Default authors.
        smallest_scale: s_min of equation 4, a share of the image's side. Default none: from `box_sizes`.
        largest_scale: s_max of equation 4, a share of the image's side. Default none: from `box_sizes`.
        aspect_ratios: Ratios of the default boxes besides 1, each also as 1 / ratio (section 2.2, Table 2). Default
            [2, 3].
        box_shapes: [width, height] of the default boxes of a cell, for each map, as shares of the image's shorter side;
            replaces the four arguments before. Default none: from them.
        clip: Clip default boxes at the image's border; the authors do not. Ports that clip x, y, width and height one
            by one are called sizes (torchvision) and centres_and_sizes (ssd.pytorch). Default false.
        boundary_boxes: False: default boxes that cross the border are not used in training (Table 3). Default true.
        match_iou: IoU from which on a default box shows an object. With two numbers: an object from the first on,
            background below the second (section 2.2). Default 0.5.
        ignore_crowd: Leave default boxes that lie at least half inside a crowd region out of the loss. Default false.
        classification: Classification loss, as an object or as {type: NAME, ...} (`singleshot.losses`). Default none:
            `SoftmaxLoss`.
        negatives: Hard negatives for each positive, of the default loss (section 2.2). Default 3.
        box_loss: Loss of the boxes: smooth_l1 (equation 2), l1 or giou. Default smooth_l1.
        beta: Difference at which smooth L1 turns from quadratic to linear. Default 1.
        box_weight: Weight of the box loss, alpha of equation 1. Default 1.
        iou_head: IoU-aware prediction: true, or choices such as {alpha: 0.4} (`IoUHead`). Default false.
        outputs: Further outputs, such as [Centreness] (`singleshot.outputs`). Default [].
        threshold: Score above which a box is a candidate (section 3.7). Default 0.01.
        nms: IoU above which the worse of two boxes of a class is dropped (section 3.7). Default 0.45.
        candidates: Best boxes of each class before NMS (authors' script); none: all. Default 400.
        candidates_of_image: Best boxes of all classes together before NMS. Default none: no limit.
        candidates_of_level: Best boxes of each map, of all classes together, before NMS, in place of `candidates`;
            boxes are clipped first (mmdetection). Default none: as `candidates` says.
        clip_before_nms: Clip boxes at the image's border before NMS (torchvision), not after it (authors).
            Default false.
        detections: Boxes to keep per image (section 3.7). Default 200.
        vote: Spread of box voting, such as 0.05: a box is averaged with the candidates near it. Default none.
        class_names: Names of the classes. Default none: class 0, class 1 ...
        category_ids: Ids of the classes in results. Default none: 0, 1 ...

    Returns:
        The detector. All weights are random, except those from `backbone_weights`.

    Raises:
        UserError: An argument is out of range or contradicts another one, or weights do not fit.
    """
    builder_arguments.weights(box_weight=box_weight)
    builder_arguments.ranking(
        threshold=threshold, nms=nms, candidates=candidates, candidates_of_image=candidates_of_image,
        detections=detections, vote=vote,
    )  # fmt: skip
    builder_arguments.at_least(1, candidates_of_level=candidates_of_level)
    if candidates_of_level is not None and candidates_of_image is not None:
        raise UserError(
            "candidates_of_level and candidates_of_image are two ways to choose candidates: give one of them"
        )
    size = builder_arguments.two_sides(image_size)
    classes = Classes.of(num_classes, class_names, category_ids)
    trunk = backbones.build(
        _variant(backbone, atrous),
        norm=norm,
        frozen_stages=frozen_stages,
        weights=backbone_weights,
        options=backbone_options,
    )
    shapes = map_sizes(trunk, size)
    extras = _extras(
        backbone, trunk, size, shapes[-1], extra_channels, separable=separable_extras, activation=activation
    )
    first = _first_map(trunk, finest_stride)
    shapes = shapes[first:] + extra_sizes(shapes[-1], extras)
    read = ssd_boxes.used_levels(source_maps, len(shapes))
    groups: Sequence[Sequence[BoxGroup | BoxShapes]]
    if box_shapes is None:
        sides = ssd_boxes.box_sizes(box_sizes, size, len(shapes), smallest=smallest_scale, largest=largest_scale)
        groups = ssd_boxes.level_groups(sides, aspect_ratios)
        groups = ssd_boxes.without_levels(groups, read, aspect_ratios, stack=stack_boxes)
    else:
        ssd_boxes.refuse_others(box_sizes, smallest_scale, largest_scale, aspect_ratios)
        groups = ssd_boxes.given_shapes(box_shapes, size, len(read))
    published = box_centres == "authors" and isinstance(trunk, backbones.VGG16)
    steps = ssd_boxes.steps(size, shapes, published=published)
    maps = ExtraLevels(trunk, extras, outputs=[first + k for k in read])  # section 2.1
    builder_arguments.drop_unused_scales(trunk, maps.outputs)
    anchors = DefaultBoxes(groups, steps=[steps[k] for k in read], clip=clip, boundary=boundary_boxes)  # section 2.2
    coder = DeltaCoder((0.1, 0.2))  # authors' script
    loss = builder_arguments.mining_loss(classification, negatives)  # section 2.2, hard negative mining
    positive, negative = builder_arguments.overlaps(match_iou=match_iou)
    extra = builder_arguments.extra_outputs(outputs, iou_head)
    scores = ClassScores(loss, extra)
    predict = _predictions(trunk, head_kernel, separable=separable_heads, activation=activation)
    return Detector(
        preprocess=Stretch(size, builder_arguments.pixel_values(pixels, trunk)),
        backbone=maps,
        neck=nn.Identity(),
        head=Head(maps.channels, anchors.per_location, branches=[
            Branch({"class_logits": loss.num_logits(num_classes)}, {"class_logits": loss.initial_bias}, **predict),
            Branch({"box_deltas": 4}, **predict),
        ], outputs=extra),
        anchors=anchors,
        criterion=Criterion(
            IoUMatcher(positive, negative, ignore_crowd=ignore_crowd),  # section 2.2, matching strategy
            {  # equation 1
                "classification": loss,
                "box": builder_arguments.box_loss(box_loss, beta),
                **loss_terms(extra),
            },
            coder,
            weights={"box": box_weight},
        ),
        postprocess=PerClassPostprocess(  # section 3.7
            coder, scores, threshold=threshold, candidates=candidates, iou=nms,
            candidates_of_image=candidates_of_image, clip_first=clip_before_nms, detections=detections, vote=vote,
        ) if candidates_of_level is None else PerLevelPostprocess(
            coder, scores, threshold=threshold, candidates=candidates_of_level, iou=nms, detections=detections,
            vote=vote,
        ),
        classes=classes,
    )  # fmt: skip


def _variant(backbone: str, atrous: bool) -> str:
    if atrous:
        return backbone
    if backbone != "vgg16":
        raise UserError(f"atrous=False changes VGG-16's fc6: expected backbone='vgg16', got {backbone!r}")
    return "vgg16_full"


def _is_published(backbone: str, trunk: backbones.Backbone, size: tuple[int, int]) -> bool:
    maps = isinstance(trunk, backbones.VGG16) and (trunk.sources, trunk.strides) == (("conv4_3", "fc7"), (8, 16))
    return maps and backbone in ("vgg16", "vgg16_bn") and size in ((300, 300), (512, 512))


def _extras(
    backbone: str,
    trunk: backbones.Backbone,
    size: tuple[int, int],
    last: tuple[int, int],
    channels: Sequence[int] | None,
    *,
    separable: bool,
    activation: Activation,
) -> tuple[Extra, ...]:
    """Extra levels as published, else derived from the trunk's `last` map, with norm and padding as the trunk has."""
    if channels is None and not separable and activation == "relu" and _is_published(backbone, trunk, size):
        return ssd300_extras() if size == (300, 300) else ssd512_extras()
    if channels is not None and not channels:
        return ()
    widths: dict[str, Any] = {} if channels is None else {"channels": channels, "levels": len(channels)}
    return derived_extras(
        last, **widths, norm=trunk.has_norm, padding=trunk.padding, separable=separable, activation=activation
    )


def _first_map(trunk: backbones.Backbone, finest_stride: int) -> int:
    """The index of the trunk's finest map whose stride is at least `finest_stride`."""
    builder_arguments.at_least(1, finest_stride=finest_stride)
    first = sum(stride < finest_stride for stride in trunk.strides)
    if first == len(trunk.strides):
        raise UserError(
            f"finest_stride={finest_stride}: the backbone has maps at strides {', '.join(map(str, trunk.strides))}; "
            "give one of them"
        )
    return first


def _predictions(trunk: backbones.Backbone, kernel: int, *, separable: bool, activation: Activation) -> dict[str, Any]:
    """How a branch predicts: by a convolution, or by a depthwise one, with norm if the trunk has it, and a 1x1 one."""
    if not separable:
        return {"kernel": kernel}
    if kernel != 3:
        raise UserError(f"separable_heads have a depthwise 3x3 convolution: leave out head_kernel={kernel}")

    def depthwise(channels: int) -> nn.Module:
        kind = ACTIVATIONS[activation]
        return ConvNormAct(channels, channels, groups=channels, norm=trunk.has_norm, activation=kind)

    return {"kernel": 1, "before": depthwise}


_VOC07 = "VOC2007 test mAP (trained on 07+12)"
VARIANTS["ssd300_vgg16"] = Variant("ssd", {}, f"{_VOC07} 77.2, COCO test-dev AP 25.1 (SSD paper, Table 6)")
VARIANTS["ssd512_vgg16"] = Variant(
    "ssd", {"image_size": 512}, f"{_VOC07} 79.8, COCO test-dev AP 28.8 (SSD paper, Table 6)"
)
VARIANTS["ssd300_mobilenetv2"] = Variant("ssd", {"backbone": "mobilenetv2"})
