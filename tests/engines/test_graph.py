"""A detector as a graph: the same detections as the detector itself, on every engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import RUNS
from mixtures import DETECTORS, MIXTURES
from torch import Tensor

from singleshot.detectors import Detector
from singleshot.engines import torch_program
from singleshot.engines.graph import Exportable, exportable
from singleshot.engines.options import Options
from singleshot.errors import UserError

CLASSES = 3


def made(name: str, **changes: Any) -> Detector:
    torch.manual_seed(0)
    detector = (DETECTORS | MIXTURES)[name](num_classes=CLASSES, **changes).eval()
    for key, parameter in detector.named_parameters():
        if key.endswith("class_logits.bias"):
            torch.nn.init.zeros_(parameter)  # an untrained network with a prior would find nothing at all
    return detector


def inputs(form: Exportable, number: int) -> tuple[Tensor, ...]:
    """Images of noise, and limits of which the first is a third shorter than the input; what lies beyond is noise."""
    height, width = form.spec.input_size or (64 + 32 * number, 160)
    random = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (number, height, width, 3), dtype=torch.uint8, generator=random)
    limits = torch.tensor([[height, width]] * number, dtype=torch.float32)
    limits[0, 0] = height * 2 // 3
    return (images, limits) if form.padded else (images,)


def expected(detector: Detector, given: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    """What the detector finds in the same pictures, in pixels of the input."""
    images, limits = given[0], given[1] if len(given) > 1 else None
    height, width = images.shape[1:3]
    whole = torch.zeros(len(images), 3, height, width)
    sizes = torch.tensor([[height, width]] * len(images)) if limits is None else limits.int()
    for place, image, (h, w) in zip(whole, images, sizes.tolist(), strict=True):
        small = image[:h, :w].permute(2, 0, 1).float() / 255
        values = torch.tensor(detector.preprocess.pixels.mean), torch.tensor(detector.preprocess.pixels.std)
        small = (small - values[0][:, None, None]) / values[1][:, None, None]
        place[:, :h, :w] = small.flip(0) if detector.preprocess.pixels.order == "bgr" else small
    with torch.no_grad():
        predictions, base = detector.predictions(whole)
        anchors, keep = detector.refined(predictions, base)
        return detector.postprocess(predictions, anchors, keep, sizes.float()).to_list()


def assert_found(found: tuple[Any, ...], told: list[dict[str, Tensor]]) -> None:
    """Boxes, scores, labels and count of a graph: the same objects; those of nearly equal score may change places."""
    boxes, scores, labels, count = (torch.as_tensor(one) for one in found)
    assert (boxes.dtype, scores.dtype, labels.dtype, count.dtype) == (
        torch.float32, torch.float32, torch.int64, torch.int64,
    )  # fmt: skip
    assert sum(len(one["scores"]) for one in told)
    for i, one in enumerate(told):
        number = int(count[i])
        assert number == len(one["scores"])
        torch.testing.assert_close(scores[i, :number], one["scores"], rtol=0, atol=1e-4)
        assert not scores[i, number:].any()
        assert not boxes[i, number:].any()
        assert not labels[i, number:].any()
        apart = (boxes[i, :number, None] - one["boxes"]).abs().amax(-1)
        apart = apart + 1e4 * (labels[i, :number, None] != one["labels"])
        if number:
            assert max(apart.amin(0).max(), apart.amin(1).max()) < 0.01


FAST = ("ssd", "iou_retinanet", "refined_retinanet")  # per class, per level with a free size, with a refiner


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in FAST else pytest.mark.slow) for one in DETECTORS | MIXTURES]
)
def test_the_graph_finds_what_the_detector_finds(name: str) -> None:
    detector = made(name)
    form = exportable(detector)
    given = inputs(form, 2)
    with torch.no_grad():
        assert_found(form(*given), expected(detector, given))


def test_the_network_alone() -> None:
    detector = made("refinedet")
    form = exportable(detector, "pixels", "raw")
    assert form.output_names == ("class_logits", "box_deltas", "anchors", "keep")
    pixels = torch.randn(2, 3, *detector.image_size)
    with torch.no_grad():
        found = dict(zip(form.output_names, form(pixels), strict=True))
        predictions, base = detector.predictions(pixels)
        anchors, keep = detector.refined(predictions, base)
    for name in ("class_logits", "box_deltas"):
        torch.testing.assert_close(found[name], predictions[name])
    torch.testing.assert_close(found["anchors"], anchors.boxes)
    assert keep is not None
    assert torch.equal(found["keep"], keep)


VARIED: dict[str, tuple[str, dict[str, Any]]] = {  # a detector, and what is changed of its post-processing
    **{name: (name, {}) for name in DETECTORS | MIXTURES},
    "soft": ("refinedet", {"soft": 0.3, "candidates": 60}),
    "voting": ("ssd", {"vote": 0.05}),
    "voting_of_levels": ("retinanet", {"vote": 0.05}),
    "of_image": ("refinedet", {"candidates_of_image": 50, "clip_first": True}),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(RUNS))
@pytest.mark.parametrize("name", list(VARIED))
def test_every_engine_finds_what_the_detector_finds(name: str, engine: str) -> None:
    """For any number of images, and where height and width are free for any size."""
    base, changes = VARIED[name]
    detector = made(base)
    detector.postprocess = replace(detector.postprocess, **changes)  # type: ignore[type-var]
    form = exportable(detector)
    run = RUNS[engine](form)
    for number in (1, 3):
        given = inputs(form, number)
        assert_found(tuple(run(*given)), expected(detector, given))


@pytest.mark.slow
def test_the_graph_of_pytorch_takes_images_of_any_shape(tmp_path: Path) -> None:
    """Wide, tall and square ones; and those of which a map has one row, one column, or one cell."""
    detector = made("iou_retinanet")
    torch_program.export(exportable(detector), tmp_path / "model.pt2")
    _, run = torch_program.open(tmp_path / "model.pt2", Options())
    usual = torch.export.load(tmp_path / "model.pt2").module()
    for height, width in ((256, 416), (416, 256), (320, 320), (32, 448), (448, 32), (32, 32)):
        images = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
        given = images, torch.tensor([[height, width]] * 2, dtype=torch.float32)
        told = expected(detector, given)
        boxes, scores, labels = map(torch.from_numpy, run(*(one.numpy() for one in given)))
        assert_found((boxes, scores, labels, (scores > 0).sum(1)), told)
        if min(height, width) > 128:  # as everyone would open it
            with torch.no_grad():
                assert_found(usual(*given), told)


def test_a_graph_of_free_size_is_traced_with_maps_of_several_rows_and_columns() -> None:
    """Else PyTorch, ONNX and OpenVINO would take a map's single row for a rule."""
    form = exportable(made("iou_retinanet"))
    images, limits = form.example(2)
    assert images.shape == (2, 384, 512, 3)  # 128, the largest stride, 3 and 4 times
    assert limits.tolist() == [[384, 512]] * 2


def test_what_cannot_be() -> None:
    detector = made("ssd")
    for words, told in (
        ({"input": "picture"}, "input must be one of image, pixels, got 'picture'"),
        ({"outputs": "boxes"}, "outputs must be one of detections, raw"),
        ({"size": (96, 96)}, "takes images of 80x112 only, got 96x96"),
        ({"batch": 0}, "batch must be the fewest and the most images"),
        ({"threshold": 2.0}, "threshold must be a number from 0 to 1"),
    ):
        with pytest.raises(UserError, match=told):
            exportable(detector, **words)  # type: ignore[arg-type]
