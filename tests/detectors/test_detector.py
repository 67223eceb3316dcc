"""What the one Detector class does beside the contract that all detectors keep."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from singleshot.detectors import Detector, retinanet, ssd
from singleshot.errors import UserError
from singleshot.prediction import Prediction


@functools.cache
def detector() -> Detector:
    torch.manual_seed(0)
    return ssd(num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=64).eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_predict_takes_everything_alike(picture: Path) -> None:
    pixels = np.asarray(Image.open(picture))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    kinds = [str(picture), picture, Image.open(picture), pixels, tensor, tensor.contiguous()]
    predictions = detector().predict(kinds)
    assert isinstance(predictions, list)
    assert len(predictions) == len(kinds)
    assert len(predictions[0]) > 0
    for found in predictions:
        assert found.size == (40, 60)
        assert torch.equal(found.boxes, predictions[0].boxes)
        assert torch.equal(found.scores, predictions[0].scores)
    assert [found.path for found in predictions] == [str(picture)] * 2 + [None] * 4
    assert predictions[0].category_ids == (0, 1)


def test_predict_of_no_pictures() -> None:
    assert detector().predict([]) == []


def test_predict_keeps_no_graph(picture: Path) -> None:
    assert not detector().predict(picture).boxes.requires_grad  # type: ignore[union-attr]


def test_predict_leaves_the_mode_also_after_an_error(tmp_path: Path) -> None:
    detector().train()
    try:
        with pytest.raises(UserError):
            detector().predict(tmp_path / "nothing.jpg")
        with pytest.raises(UserError):
            detector().predict(torch.zeros(5, 5, 5))
        assert detector().training
    finally:
        detector().eval()


def test_anchors_are_made_once_for_each_size() -> None:
    first = detector().anchors_for((64, 64))
    assert detector().anchors_for((64, 64)) is first
    other = detector().anchors_for((96, 64))
    assert len(other.boxes) > len(first.boxes)
    assert first.boxes.dtype == torch.float32


def test_asking_for_maps_changes_nothing() -> None:
    fresh = ssd(num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=64)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    shapes = fresh.map_shapes((100, 77))
    assert shapes == ((13, 10), (7, 5), (4, 3), (2, 2))
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


def test_targets_may_carry_more_than_is_read() -> None:
    target = {
        "boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]),
        "labels": torch.tensor([1]),
        "image_id": torch.tensor([9]),
        "area": torch.tensor([1.0]),
        "name": "picture",
    }
    losses, _ = detector().losses_and_detections([torch.rand(3, 64, 64)], [target])  # type: ignore[list-item]
    assert all(loss.isfinite() for loss in losses.values())


def test_boxes_are_scaled_with_their_image() -> None:
    """The same scene at twice the size is the same to the network."""
    small = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(3))
    large = small.repeat_interleave(2, 1).repeat_interleave(4, 2)
    box = torch.tensor([[8.0, 8.0, 40.0, 50.0]])
    exact, _ = detector().losses_and_detections([small], [{"boxes": box, "labels": torch.tensor([1])}])
    scaled = box * torch.tensor([4.0, 2.0, 4.0, 2.0])
    other, _ = detector().losses_and_detections([large], [{"boxes": scaled, "labels": torch.tensor([1])}])
    # Box targets are equal; the resized pixels differ a little.
    assert other["box"].item() == pytest.approx(exact["box"].item(), rel=0.2)
    preprocess = detector().preprocess
    batch = preprocess([large], "cpu")
    from singleshot.structures import Targets

    truth = Targets.from_list([{"boxes": scaled, "labels": torch.tensor([1])}])
    torch.testing.assert_close(preprocess.targets(truth, batch).boxes[0], box)


def test_repr_names_the_parts() -> None:
    text = repr(detector())
    assert "(backbone)" in text
    assert "(head)" in text


def test_a_zero_scores_image_has_no_findings() -> None:
    """Nothing is above the threshold when the background is certain."""
    import copy

    certain = copy.deepcopy(detector())
    with torch.no_grad():
        for name, parameter in certain.named_parameters():
            if "class_logits" in name:
                parameter.zero_()
            if name.endswith("class_logits.bias"):
                parameter.view(-1, 3)[:, 2] = 50.0
        (found,) = certain([torch.rand(3, 30, 30)])
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].dtype == torch.int64


def test_predictions_are_ordinary_tensors(picture: Path) -> None:
    found = detector().predict(picture)
    assert isinstance(found, Prediction)
    found.boxes.mul_(2)


def test_training_after_detection() -> None:
    """Anchors are kept from one call to the next: also from one in inference mode to one with gradients."""
    torch.manual_seed(0)
    trained = retinanet(
        num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=(64, 64), channels=16,
        box_loss="giou", iou_head={"detach": False},
    )  # fmt: skip
    image = torch.rand(3, 64, 64)
    with torch.inference_mode():
        trained.eval()([image])
    losses = trained.train()([image], [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}])
    assert isinstance(losses, dict)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.head.parameters())


def test_predict_of_a_list_with_an_image_that_cannot_be_read(picture: Path, tmp_path: Path) -> None:
    found = detector()
    seen: list[int] = []
    hook = found.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    with pytest.raises(UserError, match="nothing.jpg"):
        found.predict([picture, picture, tmp_path / "nothing.jpg", picture], batch_size=2)
    hook.remove()
    assert seen == [2]
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        found.predict([picture], batch_size=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image * 255, "float tensor with values from .* tensor / 255"),
        (lambda image: image - 0.5, "do not normalise the image"),
        (lambda image: image.masked_fill(image > 0.99, torch.nan), "NaN or infinite"),
        (lambda image: image.double().masked_fill(image > 0.99, torch.inf), "NaN or infinite"),
        (lambda image: image.half() * 2, "clamp"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_every_door_refuses_values_that_are_no_image(change: Any, said: str, training: bool) -> None:
    sound = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = [sound, change(sound)]
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    used = detector()
    used.train(training)
    try:
        for door in (used, used.losses_and_detections, used.counts):
            with pytest.raises(UserError, match=f"image 1: .*{said}"):
                door(images, [target] * 2)
        with pytest.raises(UserError, match=said):
            used.predict(images)
    finally:
        used.eval()
    assert len(used([sound, sound.half()])) == 2
