"""RetinaNet: Focal Loss for Dense Object Detection (Lin et al., 2017, arXiv 1708.02002)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from os import PathLike
from typing import Any, Literal

from torch import nn

from singleshot import backbones
from singleshot.anchors import AnchorGenerator, Convention, octave_sizes
from singleshot.coders import DeltaCoder
from singleshot.detectors import builder_arguments
from singleshot.detectors.classes import Classes
from singleshot.detectors.detector import Detector
from singleshot.detectors.registry import VARIANTS, Variant, register
from singleshot.errors import UserError
from singleshot.heads import Branch, Head
from singleshot.layers import normal_
from singleshot.losses.classification import ClassificationLoss
from singleshot.losses.criterion import Criterion
from singleshot.losses.focal import FocalLoss
from singleshot.matchers import IoUMatcher, LowQuality
from singleshot.necks import FPN, pyramid_strides
from singleshot.ops.fit import LongestSide, ShortSide, TorchvisionShortSide
from singleshot.outputs.iou import IoUHead
from singleshot.outputs.output import loss_terms
from singleshot.postprocess import ClassScores, PerLevelPostprocess
from singleshot.preprocess import KeepAspect, Pixels, Preprocess, Stretch

Resize = Literal["short", "longest", "stretch", "torchvision"]


@register
def retinanet(
    *,
    num_classes: int,
    backbone: str = "resnet50",
    image_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    resize: Resize | None = None,
    jitter: Sequence[int] | None = None,
    divisor: int = 32,
    backbone_weights: str | PathLike[str] | None = None,
    pixels: str | Sequence[Any] | Pixels | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    norm: str = "train",
    frozen_stages: int = 0,
    channels: int = 256,
    pyramid: bool = True,
    p6: Literal["c5", "p5"] = "c5",
    relu_before_p7: bool = True,
    tower_depth: int = 4,
    tower_norm: Literal["group"] | None = None,
    anchor_sizes: Sequence[float] | None = None,
    octaves: int = 3,
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    anchor_convention: Convention = "corner",
    match_iou: float | Sequence[float] = (0.5, 0.4),
    low_quality: LowQuality = "all",
    ignore_crowd: bool = False,
    classification: ClassificationLoss | Mapping[str, Any] | None = None,
    box_loss: builder_arguments.BoxLoss = "smooth_l1",
    beta: float = 0.11,
    box_weight: float = 1.0,
    iou_head: bool | IoUHead | Mapping[str, Any] = False,
    outputs: builder_arguments.Outputs = (),
    threshold: float = 0.05,
    nms: float = 0.5,
    candidates: int = 1000,
    detections: int = 100,
    vote: float | None = None,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
) -> Detector:
    """RetinaNet on any backbone and at any input size.

    Args:
        num_classes: Number of classes, without the background.
        backbone: Name of the trunk (section 4), such as resnet50, mobilenetv2 or timm/NAME. Default resnet50.
        image_size: Pixels of the short side (or as `resize` says), or [height, width] (section 4.1). Default 800.
        max_size: Largest long side, in pixels. Default 1333.
        resize: Which side becomes `image_size`: short, torchvision (short, with its rounding), longest, or stretch
            (both). Default none: short for one number, stretch for two.
        jitter: Smallest and largest short side in training, in pixels, drawn for each image (Table 2). Default none.
        divisor: Images are padded to whole multiples of this, in pixels. Default 32.
        backbone_weights: File with the backbone's weights, or imagenet: fetched if not here. Default none: random.
        pixels: Pixel values of the backbone: imagenet_rgb, caffe_bgr, or [mean, std, order]. Default none: those that
            its weights expect.
        backbone_options: Further arguments of the backbone, by name. Default none.
        norm: Batch norm of the backbone: train, eval (fixed statistics) or frozen (all fixed). Default train.
        frozen_stages: Number of first stages of the backbone that are not trained. Default 0.
        channels: Width of pyramid and towers, in channels (section 4). Default 256.
        pyramid: False: only the backbone's last map, with the anchors of all levels (section 4). Default true.
        p6: Source of level 6: c5, the backbone's last map (footnote 2), or p5, the pyramid's. Default c5.
        relu_before_p7: ReLU between levels 6 and 7 (footnote 2). Default true.
        tower_depth: Convolutions of each tower before its outputs (section 4). Default 4.
        tower_norm: group: group norm in the towers, which short trainings need. Default none.
        anchor_sizes: Side of the anchors of each level, in pixels (section 4). Default none: 4 x stride.
        octaves: Anchor sizes within an octave on each level (section 4, Table 1c). Default 3.
        aspect_ratios: Height / width of the anchors (section 4, Table 1c). Default [0.5, 1, 2].
        anchor_convention: Where cells are centred and what is rounded: corner, centre, torchvision, legacy or
            whole_pixels (`AnchorGenerator`). Default corner.
        match_iou: Two IoUs: an anchor shows an object from the first on, background below the second; or one number for
            both (section 4). Default [0.5, 0.4].
        low_quality: Anchors for an object that none overlaps that much: all, band or none (`IoUMatcher`). Default all.
        ignore_crowd: Leave anchors that lie at least half inside a crowd region out of the loss. Default false.
        classification: Classification loss, as an object or as {type: NAME, ...} (`singleshot.losses`). Default none:
            `FocalLoss`.
        box_loss: Loss of the boxes: smooth_l1, l1 or giou (section 4). Default smooth_l1.
        beta: Difference at which smooth L1 turns from quadratic to linear (Detectron's). Default 0.11.
        box_weight: Weight of the box loss. Default 1.
        iou_head: IoU-aware prediction: true, or choices such as {alpha: 0.4} (`IoUHead`). Default false.
        outputs: Further outputs, such as [Centreness] (`singleshot.outputs`). Default [].
        threshold: Score above which a box is a candidate (section 4.1). Default 0.05.
        nms: IoU above which the worse of two boxes of a class is dropped (section 4.1). Default 0.5.
        candidates: Best boxes of each level before NMS (section 4.1). Default 1000.
        detections: Boxes to keep per image (Detectron's). Default 100.
        vote: Spread of box voting, such as 0.05: a box is averaged with the candidates near it. Default none.
        class_names: Names of the classes. Default none: class 0, class 1 ...
        category_ids: Ids of the classes in results. Default none: 0, 1 ...

    Returns:
        The detector. All weights are random, except those from `backbone_weights`.

    Raises:
        UserError: An argument is out of range or contradicts another one, or weights do not fit.
    """
    builder_arguments.ranking(threshold=threshold, nms=nms, candidates=candidates, detections=detections, vote=vote)
    builder_arguments.weights(box_weight=box_weight)
    if low_quality == "bipartite":
        raise UserError("low_quality: expected one of all, band, none, got bipartite, which is for SSD")
    builder_arguments.at_least(0, tower_depth=tower_depth)
    builder_arguments.at_least(1, channels=channels, divisor=divisor, max_size=max_size)
    if not pyramid and (p6 != "c5" or not relu_before_p7):
        raise UserError(
            "p6 and relu_before_p7 belong to the pyramid's coarser levels, which pyramid=False removes: leave them out"
        )
    classes = Classes.of(num_classes, class_names, category_ids)
    trunk = backbones.build(
        backbone,
        norm=norm,
        frozen_stages=frozen_stages,
        weights=backbone_weights,
        options=backbone_options,
    )
    maps: nn.Module = trunk
    if pyramid:
        neck = FPN(trunk.channels, trunk.strides, channels, p6=p6, relu_before_p7=relu_before_p7)  # section 4
        sizes = octave_sizes(builder_arguments.level_sizes(anchor_sizes, neck.strides), octaves)
    else:  # section 4: "features from only the final ResNet layer", with the anchors of all levels
        maps = builder_arguments.last_map(trunk)
        neck = FPN(trunk.channels[-1:], trunk.strides[-1:], channels, coarser=False)
        usual = [4.0 * stride for stride in pyramid_strides(trunk.strides)]
        sizes = (tuple(chain(*octave_sizes(usual if anchor_sizes is None else anchor_sizes, octaves))),)
    anchors = AnchorGenerator(neck.strides, sizes, aspect_ratios, convention=anchor_convention)
    coder = DeltaCoder((1.0, 1.0))
    loss = builder_arguments.classification_loss(classification, FocalLoss(alpha=0.25, gamma=2.0))  # section 3
    positive, negative = builder_arguments.overlaps(match_iou=match_iou)  # section 4
    extra = builder_arguments.extra_outputs(outputs, iou_head)
    scores = ClassScores(loss, extra)
    # Section 4.1: 0.01 for 256 channels. With the same value, a narrower tower would start with almost no signal.
    draw = partial(normal_, std=0.01 * (256 / channels) ** 0.5)
    values = builder_arguments.pixel_values(pixels, trunk)
    return Detector(
        preprocess=_preprocess(image_size, max_size, resize, jitter, divisor, values),
        backbone=maps,
        neck=neck,
        head=Head(neck.channels, anchors.per_location, shared=True, branches=[
            Branch({"class_logits": loss.num_logits(num_classes)}, {"class_logits": loss.initial_bias},
                   tower_depth, tower_norm, draw),
            Branch({"box_deltas": 4}, {}, tower_depth, tower_norm, draw),
        ], outputs=extra),
        anchors=anchors,
        criterion=Criterion(
            IoUMatcher(positive, negative, low_quality=low_quality, ignore_crowd=ignore_crowd),
            {"classification": loss, "box": builder_arguments.box_loss(box_loss, beta), **loss_terms(extra)},
            coder,
            at_least_one=True,
            weights={"box": box_weight},
        ),
        postprocess=PerLevelPostprocess(  # section 4.1
            coder, scores, threshold=threshold, candidates=candidates, iou=nms, detections=detections, vote=vote
        ),
        classes=classes,
    )  # fmt: skip


def _preprocess(
    image_size: int | Sequence[int],
    max_size: int,
    resize: Resize | None,
    jitter: Sequence[int] | None,
    divisor: int,
    pixels: Pixels,
) -> Preprocess:
    resize = resize or ("short" if isinstance(image_size, int) else "stretch")
    if resize != "short" and jitter is not None:
        raise UserError(f"jitter draws the short side: use it with resize='short', not with {resize!r}")
    if resize == "stretch":
        return Stretch(builder_arguments.two_sides(image_size), pixels)
    if not isinstance(image_size, int):
        raise UserError(f"resize={resize!r} takes one whole number as image_size, got {image_size!r}")
    short = {"short": ShortSide, "torchvision": TorchvisionShortSide}
    fit = short[resize](image_size, max_size) if resize in short else LongestSide(image_size)
    return KeepAspect(fit, pixels, divisor, None if jitter is None else _short_sides(jitter))


def _short_sides(jitter: Sequence[int]) -> tuple[int, int]:
    if len(jitter) != 2:
        raise UserError(f"jitter: expected two short sides in pixels such as [640, 800], got {jitter!r}")
    return jitter[0], jitter[1]


# Group norm, because without it the towers hardly learn in a short training on few images (docs/retinanet.md).
SMALL: Mapping[str, Any] = {
    "backbone": "mobilenetv2", "image_size": 320, "resize": "stretch", "channels": 128, "tower_norm": "group",
}  # fmt: skip
_COCO = "COCO test-dev AP"
VARIANTS["retinanet_r50"] = Variant("retinanet", {}, f"{_COCO} 35.7 (RetinaNet paper, Table 1e)")
VARIANTS["retinanet_r101"] = Variant(
    "retinanet", {"backbone": "resnet101"}, f"{_COCO} 37.8, with scale jitter and 1.5x schedule 39.1 (Tables 1e, 2)"
)
VARIANTS["retinanet320_mobilenetv2"] = Variant("retinanet", SMALL)
