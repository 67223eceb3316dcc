"""Weights of a trained detector for other classes: what a class knew, it knows afterwards."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from singleshot.detectors import Detector, iou_retinanet, retinanet, ssd
from singleshot.detectors.refinedet import refinedet
from singleshot.detectors.transfer import match_classes, transfer
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.focal import FocalLoss
from singleshot.losses.sigmoid import HingeLoss

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
OPEN_IMAGES = (  # of the SSD of TensorFlow's Object Detection API in the folder of real data
    "Bicycle", "Boot", "Laptop", "Person", "Chair", "Cattle", "Desk", "Cat", "Computer mouse", "Computer monitor",
    "Box", "Mug", "Coffee cup", "Stationary bicycle", "Table", "Bottle", "High heels", "Vehicle", "Footwear", "Dog",
    "Book", "Camera", "Car",
)  # fmt: skip

Build = Callable[..., Detector]
MOBILE: dict[str, Any] = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "image_size": 64}
RESNET: dict[str, Any] = {"backbone": "resnet18", "channels": 16, "tower_depth": 1, "image_size": [64, 64]}
DETECTORS: dict[str, Build] = {
    "ssd": functools.partial(ssd, **MOBILE),
    "ssd, focal loss, IoU": functools.partial(ssd, **MOBILE, classification=FocalLoss(), iou_head=True),
    "retinanet": functools.partial(retinanet, **RESNET),
    "retinanet, softmax": functools.partial(retinanet, **RESNET, classification=SoftmaxLoss()),
    "iou_retinanet, hinge": functools.partial(iou_retinanet, **RESNET, classification=HingeLoss()),
    "refinedet": functools.partial(refinedet, **MOBILE, channels=16),
    "refinedet, focal loss": functools.partial(refinedet, **MOBILE, channels=16, classification=FocalLoss()),
}


def make(build: Build, names: tuple[str, ...], seed: int) -> Detector:
    """A fresh detector, in eval mode; those of another seed have other parameters."""
    return copy.deepcopy(_made(build, names, seed))


@functools.cache
def _made(build: Build, names: tuple[str, ...], seed: int) -> Detector:
    torch.manual_seed(seed)
    detector = build(num_classes=len(names), class_names=names).eval()
    if seed == 0:  # the source: as if it had learnt something
        for name, parameter in detector.named_parameters():
            if "predict" in name:
                nn.init.normal_(parameter, std=0.03)
    return detector


def outputs(detector: Detector) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(detector.network(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))))


def probabilities(detector: Detector) -> Tensor:
    classification: Any = detector.criterion.terms["classification"]
    found: Tensor = classification.probabilities(outputs(detector)["class_logits"])
    return found


# ------------------------------------------------------------------------------------------------------------ the names
def test_coco_to_voc_by_name() -> None:
    rows = match_classes(VOC, COCO)
    found = {name: COCO[row] for name, row in zip(VOC, rows, strict=True) if row is not None}
    assert len(found) == 20
    assert {name: other for name, other in found.items() if name != other} == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    back = match_classes(COCO, VOC)
    assert [VOC[row] for row in back if row is not None] == [
        VOC[rows.index(index)] for index in range(80) if index in rows
    ]


def test_from_open_images() -> None:
    """Ten of VOC's classes; a table is a dining table, a stationary bicycle is no bicycle."""
    rows = dict(zip(VOC, match_classes(VOC, OPEN_IMAGES), strict=True))
    found = {name: OPEN_IMAGES[row] for name, row in rows.items() if row is not None}
    assert found == {
        "bicycle": "Bicycle",
        "bottle": "Bottle",
        "car": "Car",
        "cat": "Cat",
        "chair": "Chair",
        "cow": "Cattle",
        "diningtable": "Table",
        "dog": "Dog",
        "person": "Person",
        "tvmonitor": "Computer monitor",
    }
    coco = dict(zip(COCO, match_classes(COCO, OPEN_IMAGES), strict=True))
    more = {name: OPEN_IMAGES[row] for name, row in coco.items() if row is not None and name not in VOC}
    more = {name: theirs for name, theirs in more.items() if theirs not in found.values()}
    assert more == {"cup": "Mug", "laptop": "Laptop", "mouse": "Computer mouse", "book": "Book"}


@pytest.mark.parametrize(
    ("ours", "theirs", "rows"),
    [
        (("Traffic_Light", "STOP-sign", "cup"), ("stop sign", "traffic light"), (1, 0, None)),
        (("P", "p"), ("p", "P"), (1, 0)),  # chess: case is all that tells them apart
        (("P", "p"), ("p",), (None, 0)),
        (("tv", "tvmonitor"), ("tvmonitor", "tv"), (1, 0)),
        (("tvmonitor", "tv"), ("tv",), (None, 0)),  # one class of theirs serves one of ours, the very name first
        (("TV monitor",), ("television",), (0,)),
        (("-", "_"), ("_",), (None, 0)),
        ((), ("a",), ()),
        (("a",), (), (None,)),
    ],
)
def test_names(ours: tuple[str, ...], theirs: tuple[str, ...], rows: tuple[int | None, ...]) -> None:
    assert match_classes(ours, theirs) == rows


# ---------------------------------------------------------------------------------------------------- what it says then
@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_mapped_class_says_what_it_said(name: str) -> None:
    """Sigmoid: the same probability. Softmax: the same, if it is one of these or background. Boxes: the same."""
    build = DETECTORS[name]
    source = make(build, ("person", "couch", "potted plant", "zebra"), 0)
    target = make(build, ("pottedplant", "sofa", "person"), 1)
    done = transfer(source, target)
    assert done.classes == {"pottedplant": "potted plant", "sofa": "couch", "person": "person"}
    assert not any((done.new, done.partly, done.unused, done.obstacles))

    before, after = outputs(source), outputs(target)
    everything = probabilities(source)
    expected = everything[..., [2, 1, 0]]
    if before["class_logits"].shape[-1] == 5:
        background = 1 - everything.sum(-1, keepdim=True)
        expected = expected / (expected.sum(-1, keepdim=True) + background)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(probabilities(target), expected, rtol=1e-4, atol=1e-5)
    for key in before.keys() - {"class_logits"}:
        torch.testing.assert_close(after[key], before[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["retinanet", "retinanet, softmax", "refinedet"])
def test_another_order_of_the_same_classes(name: str) -> None:
    source, target = make(DETECTORS[name], ("a", "b", "c"), 0), make(DETECTORS[name], ("c", "a", "b"), 1)
    done = transfer(source, target)
    assert not any((done.new, done.partly))
    assert done.text().startswith("3 of 3 classes found by name (by the same name), 0 start at random; ")
    torch.testing.assert_close(probabilities(target), probabilities(source)[..., [2, 0, 1]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["retinanet", "retinanet, softmax", "refinedet"])
def test_the_very_same_classes(name: str) -> None:
    source, target = make(DETECTORS[name], ("a", "b"), 0), make(DETECTORS[name], ("a", "b"), 1)
    done = transfer(source, target)
    assert done.text() == (
        "2 of 2 classes found by name (by the same name), 0 start at random; "
        f"{len(source.state_dict())} tensors copied, 0 new"
    )
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


# -------------------------------------------------------------------------------------------------- row by row, by hand
def class_rows(detector: Detector) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias [anchors, logits, ...] of each layer that gives class logits."""
    loss: Any = detector.criterion.terms["classification"]
    logits = loss.num_logits(detector.num_classes)
    state = detector.state_dict()
    return [
        (value.reshape(-1, logits, *value.shape[1:]), state[key.replace("weight", "bias")].reshape(-1, logits))
        for key, value in state.items()
        if key.endswith("class_logits.weight")
    ]


@pytest.mark.parametrize("name", list(DETECTORS))
def test_rows(name: str) -> None:
    """A class that was found has its rows, at every anchor; another one is as it was drawn, at the prior."""
    names = ("zebra", "sofa")
    source, target = make(DETECTORS[name], ("couch", "cup", "dog"), 0), make(DETECTORS[name], names, 1)
    drawn = make(DETECTORS[name], names, 1)
    done = transfer(source, target)
    layers = class_rows(target)
    assert layers
    loss: Any = target.criterion.terms["classification"]
    for ours, before, theirs in zip(layers, class_rows(drawn), class_rows(source), strict=True):
        for own, fresh, given in zip(ours, before, theirs, strict=True):
            assert torch.equal(own[:, 0], fresh[:, 0])
            assert torch.equal(own[:, 1], given[:, 0])
            assert torch.equal(own[:, 2:], given[:, 3:])  # the background, if there is one
        assert (ours[1][:, 0] == loss.initial_bias).all()
    assert len(done.partly) == 2 * len(layers)
    assert f"{len(done.taken)} tensors copied, {len(done.partly)} in part, 0 new" in done.text()
    assert done.text().startswith("1 of 2 classes found by name (sofa <- couch), 1 start at random (zebra); ")


@pytest.mark.parametrize("name", ["retinanet", "retinanet, softmax", "refinedet"])
def test_no_class_in_common(name: str) -> None:
    """The class layers are as they were drawn, background included; all else goes over."""
    source, target = make(DETECTORS[name], ("cat", "dog"), 0), make(DETECTORS[name], ("a", "b"), 1)
    drawn = make(DETECTORS[name], ("a", "b"), 1).state_dict()
    done = transfer(source, target)
    assert done.text().startswith("none of the 2 classes (a, b) is among its 2 (cat, dog); all start at random; ")
    assert done.new == tuple(key for key in drawn if "class_logits" in key)
    for key, value in target.state_dict().items():
        assert torch.equal(value, drawn[key] if key in done.new else source.state_dict()[key]), key


# ---------------------------------------------------------------------------------------------------- what does not fit
@pytest.mark.parametrize("pair", [("ssd", "ssd, focal loss, IoU"), ("retinanet", "retinanet, softmax")])
@pytest.mark.parametrize("turned", [False, True])
def test_another_kind_of_loss(pair: tuple[str, str], turned: bool) -> None:
    """One probability per class says nothing of a background: class layers stay as drawn, and it is said."""
    first, second = reversed(pair) if turned else pair
    source, target = make(DETECTORS[first], ("a", "b"), 0), make(DETECTORS[second], ("b", "a"), 1)
    drawn = make(DETECTORS[second], ("b", "a"), 1).state_dict()
    done = transfer(source, target)
    assert done.classes == {"b": "b", "a": "a"}
    assert (
        "2 of 2 classes found by name (by the same name), but all start at random: another kind of loss" in done.text()
    )
    for key, value in target.state_dict().items():
        if "class_logits" in key:
            assert torch.equal(value, drawn[key]), key
    assert any("backbone" in key for key in done.taken)


def test_another_loss_of_the_same_kind_fits() -> None:
    hinge = functools.partial(retinanet, **RESNET, classification=HingeLoss(), iou_head=True)
    source, target = make(DETECTORS["retinanet"], ("a", "b"), 0), make(hinge, ("b",), 1)
    done = transfer(source, target)
    assert all("iou_logits" in key for key in done.new)
    torch.testing.assert_close(probabilities(target), probabilities(source)[..., 1:], rtol=1e-4, atol=1e-6)


def test_as_many_parameters_in_another_order_are_no_fit() -> None:
    """Two anchors of two logits and four of one have layers of the same shape."""
    one = functools.partial(retinanet, **{**RESNET, "octaves": 1}, aspect_ratios=(1.0, 2.0))
    two = functools.partial(retinanet, **{**RESNET, "octaves": 1}, aspect_ratios=(0.5, 1.0, 2.0, 3.0))
    source, target = make(one, ("a", "b"), 0), make(two, ("a",), 1)
    drawn = class_rows(make(two, ("a",), 1))
    assert class_rows(source)[0][0].numel() == drawn[0][0].numel()
    done = transfer(source, target)
    assert done.obstacles == ("other anchors, 4 in a cell instead of 2",)
    assert torch.equal(class_rows(target)[0][0], drawn[0][0])
    assert {key.split(".")[-2] for key in done.new} == {"class_logits", "box_deltas"}


def test_other_anchors_at_some_levels() -> None:
    """SSD of another size has other boxes at some of its levels: the classes go over at the rest."""
    small = functools.partial(ssd, **{**MOBILE, "image_size": 128})
    large = functools.partial(ssd, **{**MOBILE, "image_size": 256})
    source, target = make(small, ("a", "b"), 0), make(large, ("b", "new"), 1)
    done = transfer(source, target)
    fits = [
        torch.equal(ours[1][:, 0], theirs[1][:, 1])
        for ours, theirs in zip(class_rows(target), class_rows(source), strict=False)
        if ours[1].shape == theirs[1].shape
    ]
    assert fits
    assert all(fits)
    assert done.obstacles
    assert (
        "1 of 2 classes found by name (by the same name), 1 start at random (new); in some class layers all start at "
        "random: " in done.text()
    )


def test_another_backbone() -> None:
    """Tensors of other names or shapes stay as drawn and are counted, as are those that have no place."""
    source = make(functools.partial(retinanet, **{**RESNET, "backbone": "mobilenetv2"}), ("a", "b"), 0)
    target = make(functools.partial(retinanet, **RESNET), ("b", "a"), 1)
    done = transfer(source, target)
    assert sum(key.startswith("backbone.") for key in done.new) > 100
    assert {key.partition(".")[0] for key in done.taken} == {"neck", "head"}
    assert f"{len(done.new)} new (backbone." in done.text()
    assert f", ...), {len(done.unused)} of its own not used (backbone." in done.text()
    assert set(done.taken) | set(done.new) == set(target.state_dict())


class Unlabelled(nn.Module):
    """A head that does not say which of its parameters belong to a class."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Conv2d(16, 4, 1)


def test_a_head_of_unknown_make() -> None:
    for names, taken in ((("a", "b"), True), (("b", "a"), False)):
        source, target = make(DETECTORS["retinanet"], ("a", "b"), 0), make(DETECTORS["retinanet"], names, 1)
        source.head, target.head = Unlabelled(), Unlabelled()
        done = transfer(source, target)
        assert torch.equal(source.head.logits.weight, target.head.logits.weight) is taken
        assert bool(done.obstacles) is not taken
        assert any(key.startswith("neck.") for key in done.taken)
        assert ("all start at random: the head does not say" in done.text()) is not taken


def test_nothing_is_drawn_and_the_source_is_left_alone() -> None:
    source, target = make(DETECTORS["refinedet"], ("a", "b"), 0), make(DETECTORS["refinedet"], ("b", "c"), 1)
    before, random = {key: value.clone() for key, value in source.state_dict().items()}, torch.get_rng_state()
    transfer(source, target)
    assert torch.equal(torch.get_rng_state(), random)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in source.state_dict().items())
    assert all(parameter.requires_grad for parameter in target.parameters())


def test_coco_to_voc_as_it_is_said() -> None:
    source, target = make(DETECTORS["refinedet"], COCO, 0), make(DETECTORS["refinedet"], VOC, 1)
    assert transfer(source, target).text() == (
        "20 of 20 classes found by name (aeroplane <- airplane, diningtable <- dining table, motorbike <- motorcycle, "
        "pottedplant <- potted plant, sofa <- couch, tvmonitor <- tv; the others by the same name), 0 start at random; "
        f"{len(target.state_dict())} tensors copied, 0 new"
    )
