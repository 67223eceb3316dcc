"""singleshot.weights.importers.tensorflow_ssd, against a slow execution of built files and a real file's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_nets
import torch
from exporting import assert_exports
from PIL import Image

import singleshot as ss
from singleshot.detectors import Detector
from singleshot.errors import UserError
from singleshot.weights.importers import import_weights
from singleshot.weights.importers.tensorflow_ssd.boxes import published_shapes

KINDS: dict[str, dict[str, Any]] = {
    "v2": {},
    "v2 with depthwise layers, int8": {"lite": True, "storage": "int8"},
    "v2 with 3x3 predictions, float16": {"kernel": 3, "storage": "float16"},
    "v2 as the API narrows it": {"width": 0.25, "least": 16, "classes": 3},
    "v1": {"trunk": "v1", "size": (64, 96)},
    "v1 with post-processing, uint8": {"trunk": "v1", "storage": "uint8", "ending": "post"},
}


def raw(detector: Detector, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        found = detector.predictions(pixels.permute(0, 3, 1, 2))[0]
    return found["box_deltas"], found["class_logits"]


FAST = ("v2 with depthwise layers, int8", "v1")


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_built_files_give_what_their_graph_computes(kind: str, tmp_path: Path) -> None:
    """Box codes (y, x, h, w) become (x, y, w, h), and the background is dropped. Nothing of ours computes the truth."""
    net = tflite_nets.ssd(**KINDS[kind])
    detector = import_weights(net.save(tmp_path / "net.tflite"))
    assert not detector.training
    pixels = torch.rand(1, *net.tensors[net.pixels].shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes, scores = net.run(pixels)
    boxes, logits = raw(detector, pixels)
    assert codes.abs().mean() > 0.1
    torch.testing.assert_close(boxes, codes[..., [1, 0, 3, 2]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, scores[..., 1:], rtol=1e-4, atol=1e-4)


def test_what_the_file_says_becomes_arguments(tmp_path: Path) -> None:
    path = tflite_nets.ssd(trunk="v1", ending="post", storage="uint8").save(tmp_path / "net.tflite")
    detector = import_weights(path)
    post: Any = detector.postprocess
    assert (post.threshold, post.iou, post.detections) == (pytest.approx(0.3), pytest.approx(0.6), 10)
    pixels = detector.preprocess.pixels
    assert pixels.mean == pytest.approx([128 / 255] * 3)
    assert pixels.std == pytest.approx([128 / 255] * 3)
    assert detector.class_names == ("class 1", "class 2")
    sizes = detector.map_shapes((96, 96))
    assert sizes == ((6, 6), (3, 3), (2, 2), (1, 1))
    centres = torch.from_numpy(tflite_nets.anchors_of(sizes)).float()  # (y, x, height, width)
    boxes = detector.anchors_for((96, 96)).boxes / 96
    ours = torch.stack([(boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 0] + boxes[:, 2]) / 2,
                        boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)  # fmt: skip
    torch.testing.assert_close(ours, centres, rtol=0, atol=1e-6)
    published = [box for level in published_shapes([3, 6, 6, 6]) for box in level]
    told = [box for level in detector.arguments["box_shapes"] for box in level]
    assert np.array(published) == pytest.approx(np.array(told), abs=1e-6)  # what is taken where a file has none


@pytest.mark.slow
def test_other_scales_of_the_codes_mean_the_same_boxes(tmp_path: Path) -> None:
    options = {"y_scale": 5.0, "w_scale": 2.5}
    usual, other = (
        import_weights(tflite_nets.ssd(trunk="v1", ending="post", options=some).save(tmp_path / f"{len(some)}.tflite"))
        for some in ({}, options)
    )
    pixels = torch.rand(1, 96, 96, 3)
    expected = raw(usual, pixels)[0] * torch.tensor([1.0, 2.0, 2.0, 1.0])
    torch.testing.assert_close(raw(other, pixels)[0], expected)


def test_names_may_begin_with_the_background(tmp_path: Path) -> None:
    path = tflite_nets.ssd(trunk="v1").save(tmp_path / "net.tflite")
    assert import_weights(path, class_names=["???", "cat", "dog"]).class_names == ("cat", "dog")
    with pytest.raises(UserError, match=r"net\.tflite: these weights have 2 classes, but 3 names"):
        import_weights(path, class_names=["bird", "cat", "dog"])


def broken(change: str) -> tflite_nets.Net:
    net = tflite_nets.ssd(trunk="v1", ending="post" if change == "anchors" else "raw")
    steps, tensors = net.steps, net.tensors
    convolutions = [step for step in steps if step.kind == "CONV_2D"]
    match change:
        case "operator":
            steps.append(tflite_nets.Step("RESIZE_NEAREST_NEIGHBOR", [0], [net.computed((1,))]))
        case "stride":
            convolutions[0].options["stride"] = 1
        case "activation":
            convolutions[3].options["activation"] = None
        case "path":
            convolutions[3].inputs[0] = convolutions[0].outputs[0]
        case "anchors":
            anchors = next(one for one in tensors if one.name == "anchors")
            assert anchors.values is not None
            anchors.values[7] += 0.01
        case "outputs":
            net.outputs = net.outputs[:1]
        case "kernel":
            tensors[convolutions[5].inputs[1]].shape = (1, 1)
        case "input":
            tensors[net.pixels].shape = (1, 96, 96, 1)
    return net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("operator", "RESIZE_NEAREST_NEIGHBOR; one with a feature pyramid"),
        ("stride", "has stride 1, expected 2"),
        ("activation", "has activation None, expected relu6"),
        ("path", "expected one"),
        ("anchors", "not the same boxes around the middle"),
        ("outputs", "expected box codes"),
        ("kernel", "the file is damaged"),
        ("input", r"expected \[1, height, width, 3\]"),
    ],
)
def test_what_is_no_such_detector_is_one_error(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"net\.tflite: .*{message}"):
        import_weights(broken(change).save(tmp_path / "net.tflite"))


@pytest.mark.slow
def test_an_imported_detector_is_exported(tmp_path: Path) -> None:
    assert_exports(import_weights(tflite_nets.ssd(lite=True).save(tmp_path / "net.tflite")))


NAME = "ssd_mobilenetv2_oidv4"


@pytest.fixture(scope="module")
def real(shared: Path) -> Detector:
    path = shared / "weights" / f"{NAME}_fp16.tflite"
    if not path.is_file():
        pytest.skip(f"no {path}")
    labels = (shared / "weights" / f"{NAME}_labels.txt").read_text().splitlines()
    return import_weights(path, class_names=labels, nms=0.5, threshold=0.3)


def test_a_real_file_gives_the_outputs_of_its_runtime(real: Detector, shared: Path) -> None:
    """Raw outputs and objects of the file's own runtime, on pictures that Pillow made 300 x 300."""
    outputs = np.load(shared / "weights" / f"{NAME}_outputs.npz")
    objects = json.loads((shared / "weights" / f"{NAME}_detections.json").read_text())
    assert sum(real.anchors_for((300, 300)).counts) == 1917
    for name, expected in objects.items():
        with Image.open(shared / "images" / "coral" / name) as image:
            size, small = image.size, image.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR)
        boxes, logits = raw(real, torch.from_numpy(np.asarray(small) / np.float32(127.5) - 1)[None])
        codes, scores = (torch.from_numpy(outputs[f"{name}:{kind}"]) for kind in ("boxes", "classes"))
        assert (boxes[0] - codes[:, [1, 0, 3, 2]]).abs().max() < 1e-3
        assert (logits[0] - scores[:, 1:]).abs().max() < 1e-3
        found = real.predict(small)
        assert isinstance(found, ss.Prediction)
        assert [real.class_names[label] for label in found.labels] == [one["name"] for one in expected]
        assert found.scores == pytest.approx([one["score"] for one in expected], abs=1e-3)
        scales = np.array([*size, *size]) / 300
        for box, one in zip(np.asarray(found.boxes) * scales, expected, strict=True):
            assert box == pytest.approx(np.array(one["box"]).clip(0, [*size, *size]), abs=0.5)
