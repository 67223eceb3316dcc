"""SSD as the paper and its authors built it, and its ablations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from singleshot.backbones import BACKBONES
from singleshot.coders import DeltaCoder
from singleshot.detectors import Detector, ssd
from singleshot.detectors.models import count_parameters
from singleshot.errors import UserError
from singleshot.layers import L2Scale
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.regression import SmoothL1
from singleshot.matchers import IoUMatcher

SMALL: dict[str, Any] = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "image_size": 96}


def described(**arguments: Any) -> Detector:
    """A detector without memory for its weights."""
    with torch.device("meta"):
        return ssd(**{"num_classes": 20, **arguments})


def boxes(detector: Detector) -> int:
    return len(detector.anchors_for(detector.image_size).boxes)


def cells(detector: Detector) -> list[int]:
    return [height for height, _ in detector.map_shapes(detector.image_size)]


@pytest.mark.parametrize(
    ("size", "classes", "parameters", "total", "maps"),
    [
        (300, 20, 26_285_486, 8_732, [38, 19, 10, 5, 3, 1]),
        (512, 20, 27_188_676, 24_564, [64, 32, 16, 8, 4, 2, 1]),
        (300, 80, 34_305_206, 8_732, [38, 19, 10, 5, 3, 1]),
        (512, 80, 36_038_196, 24_564, [64, 32, 16, 8, 4, 2, 1]),
        (300, 90, 35_641_826, 8_732, [38, 19, 10, 5, 3, 1]),
    ],
)
def test_golden_numbers(size: int, classes: int, parameters: int, total: int, maps: list[int]) -> None:
    detector = described(num_classes=classes, image_size=size)
    assert count_parameters(detector) == parameters
    assert boxes(detector) == total
    assert cells(detector) == maps


@pytest.mark.parametrize(("choice", "side"), [("voc", 30.0), ("coco", 21.0)])
def test_first_default_boxes(choice: str, side: float) -> None:
    first = described(box_sizes=choice).anchors_for((300, 300)).boxes[0]
    assert first.tolist() == [4 - side / 2, 4 - side / 2, 4 + side / 2, 4 + side / 2]


def test_default_boxes_of_ssd300_end_with_the_whole_image() -> None:
    last = described().anchors_for((300, 300)).boxes[-4:]
    torch.testing.assert_close(last[0], torch.tensor([18.0, 18.0, 282.0, 282.0]))  # 264 about the centre of step 300


@pytest.mark.parametrize(("ratios", "total"), [((2, 3), 8732), ((2,), 7760), ((), 3880)])
def test_table_2_ratios(ratios: tuple[float, ...], total: int) -> None:
    assert boxes(described(aspect_ratios=ratios)) == total


@pytest.mark.parametrize(
    ("kept", "total"),
    [((0, 1, 2, 3, 4), 8764), ((0, 1, 2, 3), 8942), ((0, 1, 2), 9864), ((0, 1), 9025), ((1,), 8664)],
)
def test_table_3_maps(kept: tuple[int, ...], total: int) -> None:
    detector = described(source_maps=kept)
    assert boxes(detector) == total
    assert cells(detector) == [[38, 19, 10, 5, 3, 1][k] for k in kept]
    with torch.no_grad():
        predictions = detector.network(torch.empty(1, 3, 300, 300, device="meta"))
    assert predictions["class_logits"].shape == (1, total, 21)
    assert count_parameters(detector) < 26_285_486 + 3_000_000  # levels that nobody reads are not built


@pytest.mark.parametrize("kept", [(1,), (0, 1), None])
def test_every_parameter_of_an_ablation_has_a_gradient(kept: tuple[int, ...] | None) -> None:
    """A parameter without one would stop distributed training."""
    detector = ssd(num_classes=2, image_size=64, source_maps=kept)
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]), "labels": torch.tensor([1])}
    sum(detector([torch.rand(3, 64, 64)], [target]).values()).backward()
    assert not [name for name, parameter in detector.named_parameters() if parameter.grad is None]


def test_the_full_variant_reads_conv5_3_and_keeps_the_number_of_boxes() -> None:
    detector = described(atrous=False)
    assert cells(detector) == [38, 19, 10, 5, 3, 1]
    assert boxes(detector) == 8732
    assert detector.backbone.channels[:3] == (512, 512, 4096)
    # fc6 7x7 and fc7 with all 4096 channels.
    assert count_parameters(detector) > 130_000_000


@pytest.mark.parametrize(("size", "total"), [(300, 8_732), (512, 24_564)])
@pytest.mark.parametrize("centres", ["authors", "paper"])
def test_without_atrous_the_default_boxes_stay_bit_for_bit(size: int, total: int, centres: str) -> None:
    """An ablation changes one thing: the centres on the 10x10 map once moved by up to 19 pixels."""
    found = [
        described(atrous=atrous, image_size=size, box_centres=centres).anchors_for((size, size))
        for atrous in (True, False)
    ]
    assert len(found[0].boxes) == total
    assert torch.equal(found[0].boxes, found[1].boxes)
    assert found[0].counts == found[1].counts


def test_centres_of_the_authors_and_of_the_paper() -> None:
    """By hand: the last cell of each map, (i + 0.5) * step against (i + 0.5) * 300 / |f_k|."""
    last = {}
    for centres in ("authors", "paper"):
        anchors = described(box_centres=centres).anchors_for((300, 300))
        places = torch.tensor(anchors.counts).cumsum(0) - 1  # of each map the last box
        boxes = anchors.boxes[places]
        torch.testing.assert_close(boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3])
        last[centres] = ((boxes[:, 0] + boxes[:, 2]) / 2).tolist()
    assert last["authors"] == pytest.approx([37.5 * 8, 18.5 * 16, 9.5 * 32, 4.5 * 64, 2.5 * 100, 0.5 * 300])
    assert last["paper"] == pytest.approx([37.5 * 300 / 38, 18.5 * 300 / 19, 9.5 * 30, 4.5 * 60, 2.5 * 100, 150])
    moved = [a - b for a, b in zip(last["authors"], last["paper"], strict=True)]
    assert moved == pytest.approx([3.95, 3.89, 19, 18, 0, 0], abs=0.005)  # docs/ssd.md


def test_at_512_pixels_both_centres_are_the_same() -> None:
    authors, paper = (described(image_size=512, box_centres=name) for name in ("authors", "paper"))
    assert torch.equal(authors.anchors_for((512, 512)).boxes, paper.anchors_for((512, 512)).boxes)


@pytest.mark.parametrize("kept", [(0, 1, 2), (1,)])
def test_centres_of_chosen_maps(kept: tuple[int, ...]) -> None:
    """Table 3 keeps each map's own centres, whichever they are."""
    for centres, steps in {"authors": (8, 16, 32), "paper": (300 / 38, 300 / 19, 30)}.items():
        boxes = described(source_maps=kept, box_centres=centres).anchors_for((300, 300)).boxes
        assert ((boxes[0, 0] + boxes[0, 2]) / 2).item() == pytest.approx(steps[kept[0]] / 2)


def test_other_backbones_have_the_papers_centres() -> None:
    for arguments in ({"backbone": "resnet18"}, {"backbone": "mobilenetv2"}, {"image_size": 320}):
        authors, paper = (described(**arguments, box_centres=name) for name in ("authors", "paper"))
        size = authors.image_size
        assert torch.equal(authors.anchors_for(size).boxes, paper.anchors_for(size).boxes)


def test_atrous_is_about_vgg16() -> None:
    with pytest.raises(UserError, match="atrous=False changes VGG-16"):
        ssd(num_classes=2, backbone="resnet18", atrous=False)


def test_boundary_boxes_and_clip() -> None:
    anchors = described(boundary_boxes=False).anchors_for((300, 300))
    assert anchors.usable is not None
    outside = (anchors.boxes < 0).any(1) | (anchors.boxes > 300).any(1)
    assert torch.equal(anchors.usable, ~outside)
    assert anchors.usable[-4:].tolist() == [True, True, False, False]  # of the 1x1 map the wide ones cross the border
    assert described().anchors_for((300, 300)).usable is None
    assert described().anchors_for((300, 300)).boxes.min() < 0  # the authors do not clip
    clipped = described(clip=True).anchors_for((300, 300)).boxes
    assert clipped.min() == 0
    assert clipped.max() == 300


def test_training_without_boundary_boxes() -> None:
    detector = ssd(num_classes=2, boundary_boxes=False, **SMALL)
    target = {"boxes": torch.tensor([[0.0, 0.0, 20.0, 20.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 96, 96)], [target])
    assert all(loss.isfinite() for loss in losses.values())


def test_settings_of_the_paper() -> None:
    detector = described()
    assert detector.criterion.matcher == IoUMatcher(0.5, 0.5, low_quality="bipartite", ignore_crowd=False)
    coder = DeltaCoder((0.1, 0.2))
    assert detector.criterion.terms == {"classification": SoftmaxLoss(ratio=3), "box": SmoothL1(beta=1.0)}
    step = detector.postprocess
    assert (step.threshold, step.candidates, step.iou, step.detections) == (0.01, 400, 0.45, 200)
    assert detector.criterion.coder == step.coder == coder
    assert described(ignore_crowd=True).criterion.matcher.ignore_crowd


def test_candidates_of_each_map_are_mmdetections_inference() -> None:
    """The best of each map, of all classes together, are clipped to the image before NMS."""
    torch.manual_seed(0)
    detector = ssd(num_classes=3, candidates_of_level=2, threshold=0.0, nms=1.0, **SMALL).eval()
    with torch.no_grad():
        raw = detector.raw([torch.rand(3, 96, 96)])
        found = detector.detections(raw)[0]
    assert len(found["scores"]) == 2 * len(raw.anchors.counts)
    probabilities = raw.predictions["class_logits"].softmax(-1)[0, :, :-1]
    best = [level.flatten().topk(2).values for level in probabilities.split(list(raw.anchors.counts))]
    torch.testing.assert_close(found["scores"], torch.cat(best).sort(descending=True).values)
    with pytest.raises(UserError, match="candidates_of_level and candidates_of_image"):
        ssd(num_classes=3, candidates_of_level=2, candidates_of_image=2, **SMALL)
    with pytest.raises(UserError, match="candidates_of_level"):
        ssd(num_classes=3, candidates_of_level=0, **SMALL)


def test_initialisation() -> None:
    """Trunk He normal, what is added uniform by fan-in with biases 0, L2 scale 20."""
    torch.manual_seed(0)
    detector = ssd(num_classes=3, backbone="vgg16", image_size=300, source_maps=(0, 1, 2))
    scales = [part for part in detector.modules() if isinstance(part, L2Scale)]
    assert len(scales) == 1
    assert (scales[0].weight == 20).all()
    trunk = detector.backbone.backbone.features[24].weight  # type: ignore[index,union-attr]
    assert trunk.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    for part in (detector.backbone.extras, detector.head):  # type: ignore[union-attr]
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                bound = (3 / layer.weight[0].numel()) ** 0.5
                assert layer.weight.abs().max() <= bound
                assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
                assert layer.bias is not None
                assert (layer.bias == 0).all()


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("mobilenetv2", 300),
        ("mobilenetv2", (96, 200)),
        ("resnet18", (333, 96)),
        ("resnet50", 320),
        ("resnext50_32x4d", 300),
        ("vgg16_bn", 320),
        ("vgg16", (64, 97)),
    ],
)
def test_any_backbone_and_size(backbone: str, size: int | tuple[int, int]) -> None:
    assert backbone in BACKBONES
    detector = described(backbone=backbone, image_size=size)
    shapes = detector.map_shapes(detector.image_size)
    assert shapes[-1] == (1, 1)
    assert shapes[0] == tuple(-(-side // 8) for side in detector.image_size)
    with torch.no_grad():
        predictions = detector.network(torch.empty(2, 3, *detector.image_size, device="meta"))
    assert predictions["box_deltas"].shape == (2, boxes(detector), 4)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2"])
def test_training_with_a_batch_of_one(backbone: str) -> None:
    """No batch norm stands on a map of one cell."""
    detector = ssd(num_classes=2, backbone=backbone, image_size=64).train()
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64)], [target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


def test_names_and_ids() -> None:
    detector = described(num_classes=2, class_names=["a", "b"], category_ids=[7, "x"])
    assert (detector.class_names, detector.category_ids) == (("a", "b"), (7, "x"))
    assert described(num_classes=2).class_names == ("class 0", "class 1")
    assert described(num_classes=2).category_ids == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1"),
        ({"num_classes": 2.0}, "num_classes must be a whole number"),
        ({"num_classes": True}, "num_classes must be a whole number"),
        ({"class_names": ["a"]}, "class_names must have num_classes=20 entries, got 1"),
        ({"num_classes": 2, "class_names": ["a", "a"]}, "class_names must differ"),
        ({"num_classes": 2, "category_ids": [1, 1]}, "category_ids must differ"),
        ({"image_size": 16}, "image_size must be at least 32"),
        ({"backbone": "vgg19"}, "unknown backbone 'vgg19'"),
        ({"box_sizes": "pascal"}, "box_sizes must be"),
        ({"box_sizes": [1, 2, 3]}, "box_sizes must be 7 growing sides in pixels for 6 maps"),
        ({"source_maps": [6]}, "source_maps must be growing"),
        ({"box_centres": "middle"}, "box_centres must be one of authors, paper, got 'middle'"),
        ({"pixels": "bgr"}, "pixels must be one of"),
        ({"backbone_weights": "/nowhere/weights.pth"}, "no such file"),
        ({"classification": {"type": "Hinge"}}, "unknown part 'Hinge'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        described(**arguments)


def test_classification_as_a_part_or_as_plain_data() -> None:
    for given in (SoftmaxLoss(ratio=1.0), {"type": "SoftmaxLoss", "ratio": 1.0}):
        assert described(classification=given).criterion.terms["classification"] == SoftmaxLoss(ratio=1.0)
    for wrong in ({"ratio": 1.0}, "softmax", {"type": "Pixels"}):
        with pytest.raises(UserError, match="classification must be a classification loss such as"):
            described(classification=wrong)


def test_one_class() -> None:
    detector = ssd(num_classes=1, **SMALL).eval()
    with torch.no_grad():
        (found,) = detector([torch.rand(3, 96, 96)])
    assert (found["labels"] == 0).all()


@pytest.mark.parametrize(
    "options", [{"sources": ("conv3_3", "conv4_3", "fc7")}, {"sources": ("fc7",)}, {"variant": "full"}]
)
def test_vgg_with_other_maps_is_not_the_published_one(options: dict[str, Any]) -> None:
    detector = ssd(num_classes=2, backbone_options=options)
    levels = len(detector.map_shapes((300, 300)))
    assert len(detector.anchors_for((300, 300)).counts) == levels != 6 or options == {"variant": "full"}
    assert detector.map_shapes((300, 300))[-1] == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"aspect_ratios": [0.0]}, "aspect ratios must be above 0 and finite"),
        ({"aspect_ratios": [-2.0]}, "aspect ratios must be above 0 and finite"),
        ({"box_sizes": [float("nan")] * 5}, "sizes must be above 0 and finite"),
        ({"classification": SoftmaxLoss(ratio=0), "backbone_options": {"foo": 1}}, "'mobilenetv2' has no option 'foo'"),
        ({"backbone_options": {"norm": "eval"}}, "backbone 'mobilenetv2' has no option 'norm'; it takes"),
        ({"backbone_options": {"width": "x"}}, "backbone 'mobilenetv2': width must be a number, got 'x'"),
    ],
)
def test_what_no_detector_can_be_made_of(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ssd(**{"num_classes": 2, **SMALL, **arguments})


def test_a_negative_ratio_of_negatives() -> None:
    with pytest.raises(UserError, match="ratio must be 0 or more, got -1"):
        SoftmaxLoss(ratio=-1)
