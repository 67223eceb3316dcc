"""RefineDet: published counts, the two modules against plain loops, each ablation a real change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn

import singleshot as ss
from singleshot.backbones.vgg import VGG16
from singleshot.detectors import Detector, refinedet
from singleshot.detectors.models import count_parameters
from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.focal import FocalLoss
from singleshot.necks import FPN, TransferConnection
from singleshot.refiner import DELTAS, LOGITS


def on_meta(**arguments: Any) -> Detector:
    with torch.device("meta"):
        return refinedet(num_classes=20, **arguments)


def small(**arguments: Any) -> Detector:
    torch.manual_seed(0)
    settings = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "channels": 32, **arguments}
    return refinedet(num_classes=3, **{"image_size": (64, 128), **settings})


@pytest.mark.parametrize(
    ("backbone", "classes", "count"),
    [
        ("vgg16", 20, 34_440_884),
        ("vgg16", 80, 36_100_484),
        ("resnet101", 20, 75_815_348),
        ("resnet101", 80, 82_451_588),
    ],
)
def test_published_parameter_counts(backbone: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        detectors = [refinedet(num_classes=classes, backbone=backbone, image_size=size) for size in (320, 512)]
    assert [count_parameters(detector) for detector in detectors] == [count, count]


@pytest.mark.parametrize(
    ("size", "sides", "count"), [(320, (40, 20, 10, 5), 6_375), (512, (64, 32, 16, 8), 16_320), (64, (8, 4, 2, 1), 255)]
)
def test_published_anchors(size: int, sides: tuple[int, ...], count: int) -> None:
    detector = on_meta(image_size=size)
    assert detector.map_shapes((size, size)) == tuple((side, side) for side in sides)
    boxes = detector.anchors_for((size, size)).boxes
    assert len(boxes) == count
    # Around the middle of the first cell: side 32, then twice as wide as high, then twice as high as wide.
    half = torch.tensor([[16, 16], [16 * 2**0.5, 16 / 2**0.5], [16 / 2**0.5, 16 * 2**0.5]])
    torch.testing.assert_close(boxes[:3], torch.cat([4 - half, 4 + half], 1))


def test_own_aspect_ratios() -> None:
    detector = small(aspect_ratios=[1.0, 4.0])
    boxes = detector.anchors_for((64, 128)).boxes
    assert len(boxes) == 2 * (8 * 16 + 4 * 8 + 2 * 4 + 1 * 2)
    torch.testing.assert_close(boxes[1], torch.tensor([4.0 - 8, 4.0 - 32, 4.0 + 8, 4.0 + 32]))  # 32 x 32 pixels of area
    with pytest.raises(UserError, match="aspect ratios"):
        small(aspect_ratios=[1.0, 0.0])


def test_trunk_of_vgg() -> None:
    """Dilation 3 behind a pool5 of stride 2, L2 scales 10 and 8, conv6 to 512 channels."""
    trunk: Any = on_meta().backbone.backbone
    assert isinstance(trunk, VGG16)
    assert trunk.fc6[0].dilation == (3, 3)
    detector = refinedet(num_classes=1, backbone="vgg16", image_size=64)
    scales = {name: float(scale.weight.detach()[0]) for name, scale in detector.backbone.backbone.scales.items()}  # type: ignore[union-attr]
    assert scales == {"conv4_3": 10, "conv5_3": 8}
    assert detector.backbone.strides == (8, 16, 32, 64)


def test_vgg_with_batch_norm_has_the_same_trunk_and_norm_behind_it() -> None:
    detector = on_meta(backbone="vgg16_bn")
    trunk: Any = detector.backbone.backbone
    assert trunk.fc6[0].dilation == (3, 3)
    assert detector.backbone.strides == (8, 16, 32, 64)
    assert detector.backbone.channels == on_meta().backbone.channels
    assert any(isinstance(part, BatchNorm2d) for part in detector.neck.modules())


def test_the_authors_resnet_has_blocks_before_the_heads_and_norm_in_the_neck() -> None:
    with_blocks, without = on_meta(backbone="resnet101"), on_meta(backbone="resnet101", head_blocks=False)
    assert count_parameters(with_blocks) > count_parameters(without)
    assert isinstance(with_blocks.head, nn.Sequential)
    assert any(isinstance(part, BatchNorm2d) for part in with_blocks.neck.modules())
    assert not any(isinstance(part, BatchNorm2d) for part in on_meta().neck.modules())
    blocks = on_meta(backbone="resnet101", head_blocks=True, cascade=False)
    assert count_parameters(with_blocks) - count_parameters(blocks) == 8_671_232 + 663_624


# ------------------------------------------------------------------ the loss, against plain loops
def boxes_of(count: int, generator: torch.Generator) -> Tensor:
    low = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 50], 1)


@pytest.mark.parametrize("theta", [0.99, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_both_modules_equal_plain_loops(seed: int, theta: float) -> None:
    detector = small(theta=theta, image_size=64)
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.rand(3, 64, 64, generator=generator) for _ in range(3)]
    targets = [
        {"boxes": boxes_of(n, generator).clamp(max=64), "labels": torch.randint(0, 3, (n,), generator=generator)}
        for n in (3, 0, 5)
    ]
    detector.eval()
    # Anchors on a grid overlap an object inside of them alike, and rounding would decide: these are all different.
    regular = detector.anchors_for((64, 64))
    moved = regular.boxes + torch.rand(regular.boxes.shape, generator=generator)
    detector.anchors = lambda *_: replace(regular, boxes=moved)  # type: ignore[assignment]
    with torch.no_grad():
        raw = detector.raw(pictures)
        losses = detector.losses_and_detections(pictures, targets)[0]
    base, p = moved.tolist(), raw.predictions
    boxes = [target["boxes"].tolist() for target in targets]
    labels = [target["labels"].tolist() for target in targets]
    first = reference.multibox_loss(
        p[LOGITS].tolist(), p[DELTAS].tolist(), base, boxes, [[0] * len(one) for one in labels]
    )
    refined = detector.postprocess.coder.decode(p[DELTAS], raw.base.boxes).tolist()
    keep = (p[LOGITS].softmax(-1)[..., 0] >= 1 - theta).tolist()
    second = reference.filtered_multibox_loss(
        p["class_logits"].tolist(), p["box_deltas"].tolist(), refined, boxes, labels, keep
    )
    found = [float(losses[name]) for name in ("anchor_classification", "anchor_box", "classification", "box")]
    assert found == pytest.approx([*first, *second], rel=1e-4)


def test_the_second_module_trains_the_first_only_through_the_trunk() -> None:
    detector = small().train()
    picture, target = torch.rand(3, 64, 128), {"boxes": torch.tensor([[9.0, 9, 50, 40]]), "labels": torch.tensor([1])}
    losses = detector([picture] * 2, [target] * 2)
    (losses["classification"] + losses["box"]).backward()
    assert detector.refiner is not None
    assert all(p.grad is None or not p.grad.any() for p in detector.refiner.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in detector.backbone.parameters())


# ------------------------------------------------------------------ ablations and mixtures
def test_ablations_change_the_graph() -> None:
    full, flat, bare = small(), small(cascade=False), small(cascade=False, neck="none")
    assert full.refiner is not None
    assert flat.refiner is None
    assert isinstance(flat.neck, TransferConnection)
    assert isinstance(bare.neck, nn.Identity)
    pixels = torch.rand(1, 3, 64, 128)
    assert set(flat.network(pixels)) == {"class_logits", "box_deltas"}
    assert set(full.network(pixels)) == {"class_logits", "box_deltas", LOGITS, DELTAS}
    counts = [count_parameters(detector) for detector in (full, flat, bare)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3


def test_without_filter_nothing_is_kept_back() -> None:
    detector = small(theta=1.0).eval()
    raw = detector.raw([torch.rand(3, 64, 128)])
    assert raw.keep is not None
    assert raw.keep.all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"classification": FocalLoss(), "iou_head": True},
        {"attention": "se"},
        {"neck": "fpn"},
        {"neck_norm": False},
        {"head_blocks": True},
        {"cascade": False, "classification": {"type": "FocalLoss"}},
        {"arm_iou": [0.7, 0.3]},
        {"backbone": "resnet18", "backbone_options": {}},
    ],
)
def test_mixtures_train_and_detect(arguments: dict[str, Any]) -> None:
    detector = small(**arguments).train()
    target = {"boxes": torch.tensor([[9.0, 9, 50, 40]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 128)] * 2, [target] * 2)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in detector.parameters())
    with torch.no_grad():
        detector.eval()([torch.rand(3, 40, 60)])
    assert isinstance(detector.neck, FPN) == (arguments.get("neck") == "fpn")


# ------------------------------------------------------------------ failures known from other implementations
@pytest.mark.parametrize("size", [300, (320, 500), 65])
def test_sizes_that_the_maps_cannot_halve_are_refused(size: Any) -> None:
    with pytest.raises(UserError, match="whole multiples of 64 pixels"):
        on_meta(image_size=size)


def test_attention_belongs_to_the_transfer_connection_blocks() -> None:
    with pytest.raises(UserError, match="neck_norm and attention belong to the transfer connection blocks"):
        on_meta(neck="none", attention="se")
    with pytest.raises(UserError, match="neck_norm and attention belong to the transfer connection blocks"):
        on_meta(neck="fpn", neck_norm=True)


def test_the_norm_of_the_neck_is_the_necks_alone() -> None:
    """Levels that are added to the backbone have batch norm if it has."""
    extras = on_meta(backbone="mobilenetv2", neck_norm=False).backbone.extras  # type: ignore[union-attr]
    assert any(isinstance(part, nn.BatchNorm2d) for part in extras.modules())  # type: ignore[union-attr]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("backbone", ["mobilenetv2", "resnet18"])
def test_the_smallest_input_trains(backbone: str, images: int) -> None:
    """The last map has one cell there, from which batch norm gets no statistics."""
    torch.manual_seed(0)
    detector = refinedet(num_classes=2, backbone=backbone, image_size=64, channels=16).train()
    target = {"boxes": torch.tensor([[8.0, 8, 40, 50]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64) for _ in range(images)], [target] * images)
    total = sum(losses.values(), torch.zeros(()))
    total.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in detector.parameters() if p.grad is not None])
    assert total.isfinite()
    assert norm < (1e3 if images == 2 else torch.inf)  # of one image the 2x2 maps before are few values too


def rejecting(detector: Detector) -> Detector:
    """The first module says background everywhere."""
    assert detector.refiner is not None
    for name, parameter in detector.refiner.named_parameters():
        if LOGITS in name and name.endswith("bias"):
            with torch.no_grad():
                parameter.copy_(torch.tensor([-50.0, 50.0]).repeat(len(parameter) // 2))
    return detector


def test_when_every_anchor_is_rejected_nothing_is_found_and_the_loss_is_finite() -> None:
    detector = rejecting(small()).eval()
    with torch.no_grad():
        (found,) = detector([torch.rand(3, 64, 128)])
    assert len(found["boxes"]) == 0
    target = {"boxes": torch.tensor([[9.0, 9, 50, 40]]), "labels": torch.tensor([1])}
    losses = detector.train()([torch.rand(3, 64, 128)] * 2, [target] * 2)
    assert all(bool(loss.isfinite()) for loss in losses.values())
    # Positives are never filtered: the classes are still learnt.
    assert losses["classification"] > 0
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in detector.parameters())


@pytest.mark.parametrize("extreme", [1e3, -1e3])
def test_degenerate_refined_anchors_give_no_nan(extreme: float) -> None:
    """Anchors refined to points or to sixty times their size: NaN in other implementations."""
    detector = small().train()
    assert detector.refiner is not None
    for name, parameter in detector.refiner.named_parameters():
        if DELTAS in name and name.endswith("bias"):
            nn.init.constant_(parameter, extreme)
    target = {"boxes": torch.tensor([[9.0, 9, 50, 40], [0, 0, 1, 1]]), "labels": torch.tensor([1, 0])}
    losses = detector([torch.rand(3, 64, 128)] * 2, [target] * 2)
    assert all(bool(loss.isfinite()) for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in detector.parameters())
    with torch.no_grad():
        (found,) = detector.eval()([torch.rand(3, 64, 128)])
    assert found["boxes"].isfinite().all()


@pytest.mark.parametrize("batch", [1, 4])
def test_small_batches_without_objects(batch: int) -> None:
    detector = small().train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = detector([torch.rand(3, 64, 128)] * batch, [empty] * batch)
    assert all(loss == 0 for loss in losses.values())


def test_what_is_matched_is_what_is_counted() -> None:
    """`matched` (which analyses read) leaves out the negatives that the criterion leaves out."""
    detector = rejecting(small()).eval()
    images = [torch.rand(3, 64, 128)]
    targets = [{"boxes": torch.tensor([[10.0, 10, 50, 50]]), "labels": torch.tensor([1])}]
    with torch.no_grad():
        matched = detector.matched(detector.raw(images), images, targets)
    assert matched.positive.any()
    assert torch.equal(matched.counted, matched.positive)


def test_defaults_are_the_authors() -> None:
    detector = on_meta()
    assert detector.criterion.terms["classification"] == SoftmaxLoss(ratio=3)
    postprocess: Any = detector.postprocess
    assert (postprocess.threshold, postprocess.candidates, postprocess.detections) == (0.01, 1000, 500)
    assert (postprocess.iou, postprocess.soft, postprocess.candidates_of_image) == (0.45, None, None)
    assert postprocess.coder.variances == (0.1, 0.2)
    assert detector.refiner is not None
    assert detector.refiner.theta == 0.99
    assert detector.refiner.coder.variances == (0.1, 0.2)


def test_the_papers_own_inference(tmp_path: Path) -> None:
    """Section 4, Inference: the best 400 of the image, then suppression, then 200; kept in the file."""
    detector = small(candidates_of_image=400, detections=200).eval()
    postprocess: Any = detector.postprocess
    assert (postprocess.candidates_of_image, postprocess.detections) == (400, 200)
    ss.save(detector, tmp_path / "model.safetensors")
    assert ss.load(tmp_path / "model.safetensors").postprocess == postprocess
    image = torch.rand(3, 64, 128)
    with torch.no_grad():
        (found,) = detector([image])
        detector.postprocess = replace(postprocess, candidates_of_image=1)
        (one,) = detector([image])
    assert len(found["boxes"]) > len(one["boxes"]) == 1
    assert torch.equal(found["boxes"][:1], one["boxes"])
    with pytest.raises(UserError, match="candidates_of_image must be at least 1, got 0"):
        on_meta(candidates_of_image=0)
