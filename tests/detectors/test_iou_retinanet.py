"""IoU-aware RetinaNet, and the IoU head on other detectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from singleshot.detectors import Detector, create, iou_retinanet, retinanet, ssd
from singleshot.detectors.models import count_parameters
from singleshot.errors import UserError
from singleshot.losses.quality import IoUQuality
from singleshot.necks import FPN
from singleshot.outputs.iou import IoUHead
from singleshot.postprocess import ClassScores


@pytest.mark.parametrize(("backbone", "count"), [("resnet50", 37_989_437), ("resnet101", 56_981_565)])
def test_20745_more_parameters(backbone: str, count: int) -> None:
    with torch.device("meta"):
        plain = count_parameters(retinanet(num_classes=80, backbone=backbone))
        aware = count_parameters(iou_retinanet(num_classes=80, backbone=backbone))
    assert aware == count
    assert aware - plain == 20_745


def small(**arguments: Any) -> Detector:
    torch.manual_seed(0)
    return iou_retinanet(num_classes=3, backbone="resnet18", channels=32, image_size=[96, 128], **arguments)


def test_defaults_are_the_authors() -> None:
    detector = small()
    term, scores = detector.criterion.terms["iou"], detector.postprocess.scores
    assert isinstance(term, IoUQuality)
    assert (term.loss, term.detach) == ("bce", True)
    assert isinstance(scores, ClassScores)
    assert scores.alphas == {"iou_alpha": 0.5}
    assert isinstance(detector.neck, FPN)
    assert not detector.neck.relu_before_p7


def test_choices() -> None:
    detector = small(iou_alpha=None, iou_loss="l2", iou_detach=False)
    term, scores = detector.criterion.terms["iou"], detector.postprocess.scores
    assert isinstance(term, IoUQuality)
    assert (term.loss, term.detach) == ("l2", False)
    assert isinstance(scores, ClassScores)
    assert scores.outputs == (IoUHead(alpha=None, loss="l2", detach=False).output(),)
    assert detector.arguments["iou_detach"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        {"iou_alpha": 1.5},
        {"iou_alpha": -0.1},
        {"iou_loss": "huber"},
        {"iou_branch": "class"},
        {"image_size": [16, 16]},
        {"iou_head": True},
        {"iou_alpha": "0.5"},
    ],
)
def test_wrong_choices(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        iou_retinanet(num_classes=3, backbone="resnet18", **arguments)


@pytest.mark.parametrize("detach", [True, False])
def test_the_target_lets_gradients_through_only_when_asked(detach: bool) -> None:
    detector = small(iou_detach=detach).train()
    picture = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))
    target = {"boxes": torch.tensor([[20.0, 20.0, 70.0, 70.0]]), "labels": torch.tensor([1])}
    detector([picture], [target])["iou"].backward()
    head: Any = detector.head
    gradient = head.levels[0][1].predict["box_deltas"].weight.grad
    assert (gradient is None or not gradient.any()) == detach
    assert head.levels[0][1].predict["iou_logits"].weight.grad.any()


@pytest.mark.parametrize("given", [True, {"alpha": 0.3}, IoUHead(alpha=None)])
def test_the_same_head_on_ssd(given: Any) -> None:
    torch.manual_seed(0)
    detector = ssd(num_classes=3, backbone="mobilenetv2", image_size=96, iou_head=given)
    picture, target = torch.rand(3, 96, 96), {"boxes": torch.tensor([[9.0, 9.0, 60, 50]]), "labels": torch.tensor([1])}
    losses = detector.train()([picture] * 2, [target] * 2)
    assert set(losses) == {"classification", "box", "iou"}
    assert losses["iou"] > 0
    head = {True: IoUHead(), False: given}[given is True]
    assert detector.postprocess.scores.outputs == ((IoUHead(**head) if isinstance(head, dict) else head).output(),)  # type: ignore[attr-defined]
    plain = ssd(num_classes=3, backbone="mobilenetv2", image_size=96)
    assert set(plain.network(torch.zeros(1, 3, 96, 96))) == {"class_logits", "box_deltas"}


def test_not_an_iou_head() -> None:
    with pytest.raises(UserError, match="iou_head must be true or false or IoUHead or a mapping"):
        ssd(num_classes=3, backbone="mobilenetv2", image_size=96, iou_head="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("iou_retinanet_r50", "resnet50"),
        ("iou_retinanet_r101", "resnet101"),
        ("iou_retinanet_x101", "resnext101_32x4d"),
    ],
)
def test_variants(name: str, backbone: str) -> None:
    with torch.device("meta"):
        variant = create(name, num_classes=80)
        assert count_parameters(variant) == count_parameters(iou_retinanet(num_classes=80, backbone=backbone))


def test_a_branch_of_its_own() -> None:
    """Section 3.1: an independent branch, the same as the others: four convolutions more for the IoU alone."""
    with torch.device("meta"):
        shared, own = (count_parameters(iou_retinanet(num_classes=80, iou_branch=branch)) for branch in ("box", "own"))
    assert own - shared == 4 * (256 * 256 * 9 + 256)
    detector = small(iou_branch="own", iou_loss="l1").train()
    head: Any = detector.head
    boxes, iou = head.levels[0][1], head.levels[0][2]
    assert (list(boxes.predict), list(iou.predict)) == (["box_deltas"], ["iou_logits"])
    target = {"boxes": torch.tensor([[20.0, 20.0, 70.0, 70.0]]), "labels": torch.tensor([1])}
    loss = detector([torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))], [target])["iou"]
    assert loss > 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad.any() for parameter in iou.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in iou.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in boxes.parameters())


@pytest.mark.parametrize("build", [ssd, retinanet])
def test_without_towers_there_is_no_branch_to_have(build: Any) -> None:
    arguments = {"backbone": "mobilenetv2", "image_size": 96}
    if build is retinanet:
        arguments |= {"tower_depth": 0, "channels": 32}
    with pytest.raises(UserError, match="iou: branch 'own' needs a head with towers.*leave the choice of a branch out"):
        build(num_classes=3, iou_head={"branch": "own"}, **arguments)
