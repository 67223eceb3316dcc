"""RetinaNet: published counts, and each choice a real change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from singleshot.detectors import Detector, create, retinanet
from singleshot.detectors.models import count_parameters
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.focal import FocalLoss
from singleshot.losses.regression import L1, GIoULoss, SmoothL1
from singleshot.matchers import IoUMatcher
from singleshot.necks import FPN
from singleshot.preprocess import KeepAspect, Stretch


def on_meta(**arguments: Any) -> Detector:
    with torch.device("meta"):
        return retinanet(num_classes=20, **arguments)


def small(**arguments: Any) -> Detector:
    torch.manual_seed(0)
    settings = {"backbone": "resnet18", "channels": 32, "image_size": [96, 128], **arguments}
    return retinanet(num_classes=3, **settings)


@pytest.mark.parametrize(
    ("arguments", "classes", "count"),
    [
        ({}, 20, 36_723_992),
        ({}, 80, 37_968_692),
        ({"p6": "p5"}, 20, 32_595_224),
        ({"p6": "p5"}, 80, 33_839_924),
        ({"backbone": "resnet101"}, 80, 56_960_820),
    ],
)
def test_published_parameter_counts(arguments: dict[str, Any], classes: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(retinanet(num_classes=classes, **arguments)) == count


def test_trainable_parameters_with_stem_and_first_stage_frozen() -> None:
    """37.74 M of 37.97 M for 80 classes (reference figure of the public configurations)."""
    with torch.device("meta"):
        detector = retinanet(num_classes=80, frozen_stages=2, norm="eval")
    trainable = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    assert round(trainable / 1e6, 2) == 37.74


def test_201600_anchors_at_800_by_1344() -> None:
    detector = on_meta()
    assert detector.image_size == (800, 1344)
    assert detector.map_shapes((800, 1344)) == ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
    anchors = detector.anchors_for((800, 1344))
    assert len(anchors.boxes) == 201_600
    assert detector.anchors.per_location == (9,) * 5


def test_defaults_are_the_papers() -> None:
    detector = on_meta()
    assert detector.criterion.matcher == IoUMatcher(0.5, 0.4, low_quality="all")
    assert detector.criterion.terms["classification"] == FocalLoss(alpha=0.25, gamma=2.0, prior=0.01)
    box = detector.criterion.terms["box"]
    assert isinstance(box, SmoothL1)
    assert (box.beta, detector.criterion.coder.variances) == (0.11, (1.0, 1.0))
    assert detector.criterion.at_least_one
    pyramid = detector.neck
    assert isinstance(pyramid, FPN)
    assert (pyramid.p6_source, pyramid.relu_before_p7) == ("c5", True)
    assert not any(isinstance(part, nn.GroupNorm) for part in detector.modules())
    postprocess: Any = detector.postprocess
    assert (postprocess.threshold, postprocess.candidates, postprocess.iou, postprocess.detections) == (
        0.05, 1000, 0.5, 100,
    )  # fmt: skip


def test_every_class_starts_at_the_prior() -> None:
    detector = small()
    with torch.no_grad():
        logits = detector.network(torch.zeros(1, 3, 96, 128))["class_logits"]
    assert float(logits.sigmoid().mean()) == pytest.approx(0.01, rel=0.05)
    biases = {name: p for name, p in detector.head.named_parameters() if name.endswith("bias")}
    for name, bias in biases.items():
        start = -math.log(99) if "class_logits" in name else 0.0
        torch.testing.assert_close(bias.detach(), torch.full_like(bias, start))


@pytest.mark.parametrize(("channels", "std"), [(256, 0.01), (64, 0.02)])
def test_towers_are_drawn_with_the_same_strength_at_any_width(channels: int, std: float) -> None:
    weights = [p.detach().flatten() for name, p in small(channels=channels).head.named_parameters() if "weight" in name]
    assert float(torch.cat(weights).std()) == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnet18", {}),
        ("resnet34", {}),
        ("resnet50", {}),
        ("resnet101", {}),
        ("resnet152", {}),
        ("resnext101_32x4d", {}),
        ("resnext101_32x8d", {}),
        ("mobilenetv2", {}),
        ("mobilenetv2", {"width": 0.5, "expanded": False}),
        ("vgg16", {}),
    ],
)
def test_any_backbone(backbone: str, options: dict[str, Any]) -> None:
    detector = on_meta(backbone=backbone, backbone_options=options)
    predictions = detector.network(torch.empty(1, 3, 256, 256, device="meta"))
    counts = sum(h * w * 9 for h, w in detector.map_shapes((256, 256)))
    assert {value.shape[1] for value in predictions.values()} == {counts}


@pytest.mark.parametrize(("octaves", "ratios"), [(1, (1.0,)), (2, (1.0,)), (2, (0.5, 1.0, 2.0)), (4, (0.5, 1.0, 2.0))])
def test_anchors_of_table_1c(octaves: int, ratios: tuple[float, ...]) -> None:
    detector = on_meta(octaves=octaves, aspect_ratios=ratios)
    assert detector.anchors.per_location == (octaves * len(ratios),) * 5
    predictions = detector.network(torch.empty(1, 3, 64, 64, device="meta"))
    assert predictions["box_deltas"].shape[1] == octaves * len(ratios) * (64 + 16 + 4 + 1 + 1)


def test_own_anchor_sizes() -> None:
    detector = on_meta(anchor_sizes=[16, 32, 64, 128, 256], octaves=1, aspect_ratios=[1.0])
    boxes = detector.anchors_for((64, 64)).boxes
    assert (boxes[0, 2:] - boxes[0, :2]).tolist() == [16, 16]
    with pytest.raises(UserError, match="must be 5 sides"):
        on_meta(anchor_sizes=[16, 32])


@pytest.mark.parametrize(("name", "kind"), [("smooth_l1", SmoothL1), ("l1", L1), ("giou", GIoULoss)])
def test_box_losses(name: str, kind: type) -> None:
    assert isinstance(small(box_loss=name).criterion.terms["box"], kind)


def test_towers() -> None:
    plain, normed, short = (
        small(tower_norm=norm, tower_depth=depth, channels=64) for norm, depth in ((None, 4), ("group", 4), (None, 2))
    )
    assert sum(isinstance(part, nn.GroupNorm) for part in normed.modules()) == 8
    assert count_parameters(plain) - count_parameters(short) == 4 * (64 * 64 * 9 + 64)
    assert count_parameters(normed) - count_parameters(plain) == 8 * 64


def test_how_images_are_brought_to_size() -> None:
    short = on_meta(image_size=600, max_size=1000).preprocess
    assert isinstance(short, KeepAspect)
    assert short.size == (608, 1024)
    assert on_meta(image_size=512, resize="longest").image_size == (512, 512)
    assert on_meta(image_size=500, resize="longest", divisor=128).image_size == (512, 512)
    assert isinstance(on_meta(image_size=320, resize="stretch").preprocess, Stretch)
    assert on_meta(image_size=(320, 416)).image_size == (320, 416)
    jittered = on_meta(jitter=[640, 800]).preprocess
    assert isinstance(jittered, KeepAspect)
    assert jittered.jitter == (640, 800)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": "crop"}, "short, longest, stretch"),
        ({"image_size": [320, 320], "resize": "short"}, "one whole number"),
        ({"image_size": 320, "resize": "stretch", "jitter": [300, 320]}, "jitter"),
        ({"image_size": 320, "resize": "longest", "jitter": [300, 320]}, "jitter"),
        ({"jitter": [800, 640]}, "two short sides, the smaller one first"),
        ({"image_size": 1400}, "longest side"),
        ({"image_size": [16, 320]}, "at least 32"),
        ({"image_size": [320]}, "one whole number or"),
        ({"image_size": 800.5}, "a whole number or"),
        ({"jitter": [640, 700, 800]}, "two short sides"),
        ({"jitter": 5}, "a list of whole numbers"),
        ({"divisor": 0, "image_size": [320, 320]}, "divisor must be at least 1"),
        ({"octaves": 0}, "octaves"),
        ({"aspect_ratios": []}, "aspect ratios"),
        ({"anchor_sizes": [0, 1, 2, 3, 4]}, "above 0 for each level"),
        ({"anchor_convention": "middle"}, "convention"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"tower_depth": -1}, "tower_depth must be at least 0"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"detections": 0}, "detections must be at least 1"),
        ({"pixels": "zz"}, "pixels must be one of"),
        ({"low_quality": "al"}, "bipartite, all, band, none"),
        ({"low_quality": "bipartite"}, "one of all, band, none, got bipartite, which is for SSD"),
        ({"p6": "c4"}, "c5, p5"),
        ({"tower_norm": "batch"}, "group"),
        ({"box_loss": "l3"}, "smooth_l1, l1, giou"),
        ({"classification": 3}, "classification loss"),
        ({"classification": {"type": "Focal"}}, "unknown part 'Focal'"),
        ({"iou_head": {"alpha": 2}}, "0 to 1"),
        ({"backbone": "resnet51"}, "resnet50"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        on_meta(**arguments)


def test_softmax_has_a_background_of_its_own() -> None:
    detector = small(classification=SoftmaxLoss(ratio=3))
    assert detector.network(torch.zeros(1, 3, 96, 128))["class_logits"].shape[-1] == 4


@pytest.mark.parametrize("low_quality", ["all", "band", "none"])
def test_low_quality_is_the_matchers(low_quality: str) -> None:
    assert small(low_quality=low_quality).criterion.matcher.low_quality == low_quality


def test_images_of_any_shape_with_the_aspect_kept() -> None:
    detector = small(image_size=96, max_size=160).eval()
    pictures = [torch.rand(3, 60, 90), torch.rand(3, 90, 60), torch.rand(3, 20, 200)]
    with torch.no_grad():
        raw = detector.raw(pictures)
        found = detector(pictures)
    assert raw.batch.pixels.shape == (3, 3, 160, 160)
    for picture, result in zip(pictures, found, strict=True):
        height, width = picture.shape[1:]
        assert (result["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert (result["boxes"] >= 0).all()


def boxes_of(*boxes: list[float]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.zeros(len(boxes), dtype=torch.int64)}


@pytest.mark.parametrize("size", [[96, 128], 96])
@pytest.mark.parametrize(
    "target",
    [
        boxes_of(),
        boxes_of([10, 10, 11, 11]),
        boxes_of([10, 10, 10.01, 10.01]),
        boxes_of([0, 0, 120, 90]),
        boxes_of(*([float(x), float(y), x + 3.0, y + 2.0] for x in range(0, 100, 2) for y in range(0, 40, 2))),
    ],
    ids=["no object", "one pixel", "a hundredth of a pixel", "the whole image", "1000 objects"],
)
def test_awkward_objects_give_finite_losses_and_gradients(size: Any, target: dict[str, Tensor]) -> None:
    detector = small(image_size=size, iou_head=True).train()
    pictures = [torch.rand(3, 90, 120), torch.rand(3, 90, 120)]
    losses = detector(pictures, [target, boxes_of()])
    assert all(bool(loss.isfinite()) for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    assert all(bool(p.grad.isfinite().all()) for p in detector.parameters() if p.grad is not None)


def test_images_without_objects_teach_background() -> None:
    detector = small(iou_head=True).train()
    losses = detector([torch.rand(3, 90, 120)] * 2, [boxes_of(), boxes_of()])
    assert losses["classification"] > 0
    assert losses["box"] == losses["iou"] == 0


@pytest.mark.parametrize("name", ["retinanet320_mobilenetv2", "iou_retinanet320_mobilenetv2"])
def test_small_variants_detect(name: str) -> None:
    detector = create(name, num_classes=2).eval()
    assert detector.image_size == (320, 320)
    assert detector.predict(torch.rand(3, 100, 80)).boxes.shape[1] == 4
