"""The numbers that the papers name, as arguments of every builder that they fit."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from exporting import assert_exports
from torch import Tensor

import singleshot as ss
from singleshot.backbones import VGG16
from singleshot.cli import main
from singleshot.detectors import BUILDERS, Detector
from singleshot.detectors.ssd_boxes import box_sizes
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.focal import FocalLoss

Capture = pytest.CaptureFixture[str]
SMALL: dict[str, Any] = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "image_size": (64, 128)}
RANKING = {"threshold": 0.2, "nms": 0.6, "candidates": 33, "detections": 7}
EVERYWHERE: dict[str, Any] = {**RANKING, "box_weight": 2.0, "match_iou": [0.6, 0.3]}
ONLY: dict[str, dict[str, Any]] = {
    "ssd": {"negatives": 2.0, "candidates_of_image": 20, "smallest_scale": 0.15, "largest_scale": 0.8},
    "refinedet": {"negatives": 2.0, "candidates_of_image": 20},
    "retinanet": {"pyramid": False},
    "iou_retinanet": {"pyramid": False},
}
every_builder = pytest.mark.parametrize("builder", list(BUILDERS))
TARGET = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0], [50.0, 10.0, 120.0, 60.0]]), "labels": torch.tensor([0, 2])}


def made(builder: str, **arguments: Any) -> Detector:
    torch.manual_seed(0)
    return BUILDERS[builder](**{"num_classes": 3, **SMALL, **arguments})


def described(builder: str, **arguments: Any) -> Detector:
    with torch.device("meta"):
        return made(builder, **arguments)


def losses_of(detector: Detector) -> dict[str, Tensor]:
    image = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(0))
    return detector.train()([image], [TARGET])


@every_builder
def test_all_of_them_arrive_and_travel_in_a_file(builder: str, tmp_path: Path) -> None:
    given = {**EVERYWHERE, **ONLY[builder]}
    detector = made(builder, **given)
    for one in (detector, ss.load(_saved(detector, tmp_path / "model.safetensors"))):
        assert {name: one.arguments[name] for name in given} == given
        postprocess: Any = one.postprocess
        assert (postprocess.threshold, postprocess.iou, postprocess.candidates, postprocess.detections) == (
            0.2, 0.6, 33, 7,
        )  # fmt: skip
        assert (one.criterion.matcher.positive, one.criterion.matcher.negative) == (0.6, 0.3)
        assert one.criterion.weights == {"box": 2.0}
        if "negatives" in given:
            assert one.criterion.terms["classification"] == SoftmaxLoss(ratio=2.0)
            assert postprocess.candidates_of_image == 20
    image = torch.rand(3, 64, 128)
    loaded = ss.load(tmp_path / "model.safetensors")
    with torch.no_grad():
        for found, expected in zip(loaded([image]), detector.eval()([image]), strict=True):
            assert torch.equal(found["boxes"], expected["boxes"])


def _saved(detector: Detector, path: Path) -> Path:
    ss.save(detector, path)
    return path


@every_builder
def test_defaults_said_aloud_change_nothing(builder: str) -> None:
    """What a file says without the arguments is what it says with their defaults."""
    names = {name for name in (*EVERYWHERE, *ONLY[builder]) if name not in ("smallest_scale", "largest_scale")}
    # Those that iou_retinanet passes on are RetinaNet's.
    signature = inspect.signature(BUILDERS["retinanet" if builder == "iou_retinanet" else builder])
    defaults = {name: signature.parameters[name].default for name in names}
    plain, said = described(builder), described(builder, **defaults)
    assert plain.postprocess == said.postprocess
    assert plain.criterion == said.criterion
    size = plain.image_size
    assert torch.equal(plain.anchors_for(size).boxes, said.anchors_for(size).boxes)


@every_builder
def test_the_weight_of_the_box_loss(builder: str) -> None:
    """SSD's equation 1: alpha times the box loss, and nothing else changes."""
    plain, weighted = losses_of(made(builder)), losses_of(made(builder, box_weight=2.5))
    assert plain["box"] > 0
    for name, loss in plain.items():
        factor = 2.5 if name in ("box", "anchor_box") else 1.0
        torch.testing.assert_close(weighted[name], loss * factor)
    assert losses_of(made(builder, box_weight=0))["box"] == 0


def test_the_weight_of_the_box_loss_is_worked_by_hand() -> None:
    """Smooth L1 of zero deltas against the encoded object, alpha 3."""
    detector = made("ssd", box_weight=3.0)
    for branch in detector.head.parameters():
        branch.data.zero_()
    anchors = detector.anchors_for((64, 128)).boxes
    matched = detector.criterion.matcher(
        detector.anchors_for((64, 128)),
        ss.structures.Targets(TARGET["boxes"][None], TARGET["labels"][None], torch.zeros(1, 2, dtype=torch.bool)),
    )
    deltas = detector.criterion.coder.encode(matched.boxes, anchors)[matched.positive].abs()
    one = torch.where(deltas < 1, deltas**2 / 2, deltas - 0.5).sum() / matched.positive.sum()
    torch.testing.assert_close(losses_of(detector)["box"], 3 * one)


@every_builder
@pytest.mark.parametrize(("given", "positive", "negative"), [(0.7, 0.7, 0.7), ([0.6, 0.2], 0.6, 0.2), (1, 1.0, 1.0)])
def test_the_matching_threshold(builder: str, given: Any, positive: float, negative: float) -> None:
    matcher = described(builder, match_iou=given).criterion.matcher
    assert (matcher.positive, matcher.negative) == (positive, negative)


def test_the_matching_threshold_decides_who_is_positive() -> None:
    """All anchors that overlap the object by that much, and in any case the best one."""
    truth, no = torch.tensor([[[22.0, 6.0, 58.0, 50.0]]]), torch.zeros(1, 1, dtype=torch.bool)
    numbers = []
    for iou in (0.3, 0.5, 0.99):
        detector = made("ssd", match_iou=iou)
        anchors = detector.anchors_for((64, 128))
        matched = detector.criterion.match(anchors, ss.structures.Targets(truth, torch.zeros(1, 1).long(), no))
        over = [reference.iou(truth[0, 0].tolist(), box) >= iou for box in anchors.boxes.tolist()]
        assert matched.positive.sum() == max(1, sum(over))
        numbers.append(sum(over))
    assert numbers[0] > numbers[1] > numbers[2] == 0


def test_of_refinedet_the_first_module_has_its_own_threshold() -> None:
    detector = described("refinedet", match_iou=0.6, arm_iou=[0.7, 0.3])
    assert detector.refiner is not None
    first = detector.refiner.criterion.matcher
    assert (first.positive, first.negative) == (0.7, 0.3)
    assert detector.criterion.matcher.positive == 0.6


def test_negatives_and_box_weight_are_of_both_modules_of_refinedet() -> None:
    detector = described("refinedet", negatives=1.5, box_weight=0.5)
    assert detector.refiner is not None
    assert detector.refiner.objectness.ratio == 1.5
    assert detector.refiner.criterion.weights == {"anchor_box": 0.5}
    assert detector.criterion.terms["classification"] == SoftmaxLoss(ratio=1.5)
    other = described("refinedet", negatives=1.5, classification=FocalLoss())  # the first module still mines
    assert other.refiner is not None
    assert other.refiner.objectness.ratio == 1.5


def test_equation_4() -> None:
    """By hand: m = 5 maps behind conv4_3, s_min = 0.15, s_max = 0.75, in steps of 0.15; half of s_min for conv4_3."""
    sizes = box_sizes("voc", (300, 300), 6, smallest=0.15, largest=0.75)
    assert sizes == pytest.approx([22.5, 45, 90, 135, 180, 225, 270])
    # The paper's own numbers are not the authors' table: 0.375 x 300 is 112.5 where they have 111.
    assert box_sizes("voc", (300, 300), 6, smallest=0.2) == pytest.approx([30, 60, 112.5, 165, 217.5, 270, 322.5])
    assert box_sizes("voc", (300, 300), 6)[2] == 111
    assert box_sizes("coco", (300, 300), 6, largest=0.8)[:2] == pytest.approx((0.07 * 300, 45))
    first = described("ssd", image_size=300, smallest_scale=0.3, largest_scale=0.9).anchors_for((300, 300)).boxes[0]
    assert (first[2] - first[0]).item() == pytest.approx(45)


class TestTheLastMapAlone:
    """RetinaNet without a pyramid: "features from only the final ResNet layer yielded low AP" (section 4)."""

    def test_shapes_and_anchors(self) -> None:
        with torch.device("meta"):
            detector = ss.retinanet(num_classes=20, pyramid=False)
        assert detector.map_shapes((800, 1344)) == ((25, 42),)
        assert detector.anchors.per_location == (45,)  # five sizes, three octaves, three ratios
        boxes = detector.anchors_for((800, 1344)).boxes
        assert len(boxes) == 25 * 42 * 45
        areas = (boxes[:45, 2] - boxes[:45, 0]) * (boxes[:45, 3] - boxes[:45, 1])
        assert sorted(set(areas.sqrt().round().tolist())) == [
            round(size * 2 ** (k / 3)) for size in (32, 64, 128, 256, 512) for k in range(3)
        ]
        with torch.no_grad():
            predictions = detector.network(torch.empty(1, 3, 800, 1344, device="meta"))
        assert predictions["class_logits"].shape == (1, 47_250, 20)

    def test_sizes_are_a_choice(self) -> None:
        detector = described("retinanet", pyramid=False, anchor_sizes=[40, 80], octaves=1)
        assert detector.anchors.per_location == (6,)
        with pytest.raises(UserError, match="anchors need positive sizes"):
            described("retinanet", pyramid=False, anchor_sizes=[40, 0])

    @pytest.mark.parametrize("builder", ["retinanet", "iou_retinanet"])
    @pytest.mark.parametrize("backbone", ["mobilenetv2", "resnet18"])
    def test_trains_a_step(self, builder: str, backbone: str) -> None:
        detector = made(builder, backbone=backbone, backbone_options=None, pyramid=False, channels=16)
        losses = losses_of(detector)
        assert all(loss > 0 for loss in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
        assert not [name for name, parameter in detector.named_parameters() if parameter.grad is None]

    def test_no_scale_is_left_that_nobody_reads(self) -> None:
        detector = described("retinanet", backbone="vgg16", backbone_options=None, pyramid=False)
        trunk = next(part for part in detector.modules() if isinstance(part, VGG16))
        assert not trunk.scales

    @pytest.mark.parametrize("arguments", [{"p6": "p5"}, {"relu_before_p7": False}])
    def test_what_belongs_to_the_pyramid(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(UserError, match="p6 and relu_before_p7 belong to the pyramid's coarser levels"):
            described("retinanet", pyramid=False, **arguments)


@pytest.mark.parametrize(
    ("builder", "arguments", "said"),
    [
        *((name, {"box_weight": value}, "box_weight must be a number of at least 0, got")
          for name in BUILDERS for value in (-1.0, float("nan"))),
        *((name, {"box_weight": float("inf")}, "box_weight is inf; expected at most 1,000,000") for name in BUILDERS),
        *((name, {"threshold": 1.5}, "threshold must be a number from 0 to 1, got 1.5") for name in BUILDERS),
        *((name, {"nms": -0.1}, "nms must be a number from 0 to 1, got -0.1") for name in BUILDERS),
        *((name, {"candidates": 0}, "candidates must be at least 1, got 0") for name in BUILDERS),
        *((name, {"detections": 0}, "detections must be at least 1, got 0") for name in BUILDERS),
        *((name, {"match_iou": value}, r"match_iou must be two overlaps such as \[0.7, 0.3\]")
          for name in BUILDERS for value in (0, 1.2, [0.3, 0.7], [0.5, 0.4, 0.3], [], [0.5, 0.0])),
        ("ssd", {"match_iou": "0.5"}, "match_iou must be a number or a list of numbers, got '0.5'"),
        ("retinanet", {"candidates": None}, "candidates must be a whole number, got None"),
        ("retinanet", {"negatives": 3}, "retinanet has no argument 'negatives'"),
        ("retinanet", {"candidates_of_image": 3}, "retinanet has no argument 'candidates_of_image'"),
        ("ssd", {"candidates_of_image": 0}, "candidates_of_image must be at least 1, got 0"),
        ("ssd", {"negatives": -1}, "negatives must be a number of at least 0, got -1"),
        ("ssd", {"negatives": 2, "classification": FocalLoss()}, "negatives=2 is the default loss's number"),
        ("refinedet", {"negatives": 2, "classification": FocalLoss(), "cascade": False}, "negatives=2 is the default"),
        ("refinedet", {"nms": 0.5, "soft_nms": 0.3}, "which soft_nms=0.3 replaces: choose one of them"),
        ("ssd", {"smallest_scale": 0.9, "largest_scale": 0.2}, "smallest_scale and largest_scale must be shares"),
        ("ssd", {"smallest_scale": 0.0}, "smallest_scale and largest_scale must be shares"),
        ("ssd", {"largest_scale": 1.5}, "smallest_scale and largest_scale must be shares"),
        ("ssd", {"smallest_scale": float("nan")}, "smallest_scale and largest_scale must be shares"),
        ("ssd", {"smallest_scale": 0.2, "box_sizes": [20, 40, 60, 80, 100, 120]}, "leave out one or the other"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(builder: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        described(builder, **arguments)


@pytest.mark.parametrize("builder", ["ssd", "refinedet", "iou_retinanet"])
def test_from_the_command_line(
    builder: str, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**EVERYWHERE, **ONLY[builder], "backbone": "mobilenetv2", "image_size": 64}
    words = [word for name, value in given.items() for word in (f"--arguments.{name}", json.dumps(value))]
    words += ["--builder", builder, "--schedule.steps", "1", "--batch-size", "2", "--data.workers", "0"]
    assert main(["train", str(tiny_voc), *words, "--device", "cpu", "--out", str(tmp_path / "run"), "--json"]) == 0
    detector = ss.load(Path(json.loads(capsys.readouterr().out)["run"]) / "last.safetensors")
    assert {name: detector.arguments[name] for name in given} == given
    wrong = ["--arguments.match_iou", "[0.3, 0.7]", "--out", str(tmp_path / "wrong")]
    assert main(["train", str(tiny_voc), "--builder", builder, *wrong]) == 2
    assert "match_iou must be two overlaps" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        pytest.param("ssd", {"candidates_of_image": 30}, marks=pytest.mark.slow),
        pytest.param("refinedet", {"candidates_of_image": 30, "detections": 20}, marks=pytest.mark.slow),
        pytest.param(
            "retinanet",
            {
                "pyramid": False,
                "channels": 16,
                "classification": FocalLoss(prior=0.5),
            },  # untrained it would find nothing
            marks=pytest.mark.slow,
        ),
    ],
)
def test_export_with_a_free_batch_size(builder: str, arguments: dict[str, Any]) -> None:
    assert_exports(made(builder, image_size=64, **arguments))
