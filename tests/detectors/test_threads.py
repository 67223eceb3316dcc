"""One detector in many threads: each gets what it would get alone, and nobody's mode or weights change."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from singleshot.detectors import Detector, iou_retinanet, refinedet, retinanet, sizes, ssd
from singleshot.eval_mode import evaluating
from singleshot.multiscale.detector import MultiScaleDetector
from singleshot.multiscale.views import MultiScale, View
from singleshot.prediction import Prediction

THREADS = 8
SMALL: dict[str, Any] = {"num_classes": 2, "backbone": "mobilenetv2", "backbone_options": {"width": 0.25}}
PYRAMID: dict[str, Any] = {**SMALL, "image_size": 64, "max_size": 128, "channels": 16, "tower_depth": 1}


def fresh(name: str) -> Detector:
    torch.manual_seed(0)
    if name == "ssd":
        return ssd(**SMALL, image_size=64)
    if name == "refinedet":
        return refinedet(**SMALL, image_size=64)
    return {"retinanet": retinanet, "iou_retinanet": iou_retinanet}[name](**PYRAMID)


FAMILIES = ("ssd", "retinanet", "iou_retinanet", "refinedet")
PICTURES = [
    torch.randint(0, 256, (3, 40 + 8 * k, 60 + 16 * (k * 7 % 5)), generator=torch.Generator().manual_seed(k)).byte()
    for k in range(THREADS)
]  # each has another input size in the detectors that keep the aspect ratio


def together(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """The results of `work(0)`, `work(1)`, ..., each in its own thread; all begin at the same moment."""
    barrier = Barrier(threads)

    def begun(number: int) -> Any:
        barrier.wait(timeout=60)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begun, range(threads)))


def assert_same(found: Prediction, expected: Prediction) -> None:
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_first_predictions_in_threads_equal_those_of_one(name: str, training: bool) -> None:
    alone = fresh(name).train(training)
    expected = [alone.predict(picture) for picture in PICTURES]
    assert sum(len(one) for one in expected)
    detector = fresh(name).train(training)
    for found, want in zip(together(lambda k: detector.predict(PICTURES[k])), expected, strict=True):
        assert_same(found, want)
    assert all(part.training == training for part in detector.modules())
    before = alone.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


def test_a_new_size_does_not_disturb_others() -> None:
    detector = fresh("retinanet").eval()
    expected = detector.predict(PICTURES[0])

    def work(number: int) -> bool:
        if number == 0:
            shapes = [detector.map_shapes((32 * k, 64)) for k in range(2, 12)]
            return len(set(shapes)) == len(shapes)
        return all(torch.equal(detector.predict(PICTURES[0]).boxes, expected.boxes) for _ in range(4))

    assert together(work, 3) == [True] * 3


def test_predicting_while_another_thread_trains_changes_no_loss() -> None:
    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}] * 2

    def losses(detector: Detector) -> list[Tensor]:
        return [sum(detector(images, targets).values()).detach() for _ in range(4)]

    expected = losses(fresh("ssd").train())
    detector = fresh("ssd").train()
    found = together(lambda k: losses(detector) if k == 0 else [detector.predict(PICTURES[k]) for _ in range(3)], 3)[0]
    assert [float(one) for one in found] == [float(one) for one in expected]
    assert all(part.training for part in detector.modules())


def test_a_replaced_network_is_switched_until_the_last_thread_leaves() -> None:
    detector = fresh("ssd").train()
    parts = detector.network
    seen: list[bool] = []

    def network(pixels: Tensor) -> dict[str, Tensor]:
        seen.append(detector.training)
        return parts(pixels)

    detector.network = network
    with torch.no_grad():
        expected = fresh("ssd").eval()([PICTURES[0]])[0]
    for found in together(lambda _: detector.predict(PICTURES[0])):
        assert torch.equal(found.boxes, expected["boxes"])
        assert torch.equal(found.scores, expected["scores"])
    assert seen == [False] * THREADS
    assert all(part.training for part in detector.modules())


def test_a_part_that_cannot_be_copied_is_switched() -> None:
    detector = fresh("ssd")
    detector.backbone.opened = (number for number in range(3))  # type: ignore[assignment]
    detector.anchors_for = lambda *_: fresh("ssd").anchors_for((64, 64))  # type: ignore[method-assign, assignment]
    with evaluating(detector.train()) as used:
        assert used is detector
        assert not detector.training
    assert detector.training


def test_a_module_of_the_user_is_switched_once_and_back() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout().eval())
    with evaluating(module) as outer:
        with evaluating(module) as inner:
            assert outer is inner is module
        assert not module.training
    assert [part.training for part in module.modules()] == [True, True, False]


def test_views_in_threads() -> None:
    detector = MultiScaleDetector(fresh("ssd"), MultiScale(views=(View(scale=1), View(scale=1.5)), mirror=True))
    expected = MultiScaleDetector(fresh("ssd"), detector.recipe)(PICTURES[:1])[0]
    for found in together(lambda _: detector(PICTURES[:1])[0], 4):
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert detector.seen == 4 * 4


def test_copies_keep_nothing_of_the_sizes_and_work_alike() -> None:
    detector = fresh("ssd").eval()
    expected = detector.predict(PICTURES[0])
    keys = detector.state_dict().keys()
    copies = [copy.deepcopy(detector), pickle.loads(pickle.dumps(detector)), copy.copy(detector)]
    for other in [*copies, detector.to("cpu")]:
        assert_same(other.predict(PICTURES[0]), expected)
        assert other.state_dict().keys() == keys
        assert not any(value.is_meta for value in other.state_dict().values())
    assert copies[0]._sizes is not detector._sizes


def test_only_the_latest_sizes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of many sizes must not fill the memory."""
    monkeypatch.setattr(sizes, "_KEPT", 3)
    detector = fresh("retinanet").eval()
    expected = detector.anchors_for((32, 64)).boxes
    for k in range(1, 8):
        detector.anchors_for((32 * k, 64))
    assert [size for size, _ in detector._sizes._anchors] == [(32 * k, 64) for k in (5, 6, 7)]
    assert len(detector._sizes._shapes) == 3
    assert torch.equal(detector.anchors_for((32, 64)).boxes, expected)


def test_another_backbone_has_its_own_shapes() -> None:
    detector = fresh("ssd").eval()
    before = detector.map_shapes((64, 64))
    detector.backbone = nn.Sequential(nn.AvgPool2d(2), detector.backbone)
    detector.backbone.pixels = None  # type: ignore[assignment]
    assert detector.map_shapes((128, 128)) == before
