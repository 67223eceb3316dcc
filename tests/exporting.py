"""What every detector has to keep: its export, made with two images, takes any number of them and gives the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.detectors.whole import Whole
from singleshot.engines.quiet import load_package

MOST = 64  # images of a batch that the graph is made for


def assert_exports(detector: Detector, batches: tuple[int, ...] = (1, 2, 5)) -> None:
    """`torch.export` takes the whole detector with a free batch size, and the graph gives what eager gives."""
    whole, (height, width) = Whole(detector).eval(), detector.image_size
    batch = torch.export.Dim("batch", min=1, max=MOST)
    with torch.no_grad():
        example = inputs(2, height, width)
        program = torch.export.export(whole, example, dynamic_shapes=({0: batch}, {0: batch})).module()
        for number in batches:
            pixels, limits = inputs(number, height, width)
            assert_same_detections(program(pixels, limits), whole(pixels, limits))


def inputs(number: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Noise, and limits that differ from image to image: the first is a third shorter than the input."""
    pixels = torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(number))
    limits = torch.tensor([[height, width]] * number, dtype=torch.float32)
    limits[0, 0] = height * 2 // 3
    return pixels, limits


def assert_same_detections(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """The same scores, and boxes and labels that agree one to one; the order of equal scores is open."""
    boxes, scores, labels = found
    assert boxes.dtype == scores.dtype == torch.float32
    assert labels.dtype == torch.int64
    rows = min(scores.shape[1], expected[1].shape[1])  # eager, RetinaNet's are as many as the fullest image has
    assert not scores[:, rows:].any()
    assert not expected[1][:, rows:].any()
    torch.testing.assert_close(scores[:, :rows], expected[1][:, :rows], rtol=1e-4, atol=1e-5)
    there = scores[:, :rows] > 0
    assert there.any(1).all()
    for i, mask in enumerate(there):
        apart = (boxes[i, :rows][mask][:, None] - expected[0][i, :rows][mask]).abs().amax(-1)
        apart = apart + 1e4 * (labels[i, :rows][mask][:, None] != expected[2][i, :rows][mask])
        assert max(apart.amin(0).max(), apart.amin(1).max()) < 0.05


def onnx_run(form: Any) -> Callable[..., list[Any]]:
    """The detector's ONNX model, in ONNX Runtime. Skips the test where a package is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'singleshot[export]'")
    from singleshot.engines.onnx_graph import to_onnx

    choices = (runtime := load_package("onnxruntime")).SessionOptions()
    choices.intra_op_num_threads = 1
    session = runtime.InferenceSession(to_onnx(form).SerializeToString(), choices)
    return lambda *given: session.run(
        list(form.output_names), dict(zip(form.input_names, (np.asarray(one) for one in given), strict=True))
    )


def openvino_run(form: Any) -> Callable[..., list[Any]]:
    """The detector's OpenVINO model, compiled. Skips the test where the package is missing."""
    pytest.importorskip("openvino", reason="needs openvino: pip install 'singleshot[openvino]'")
    from singleshot.engines.openvino_graph import to_openvino

    core = load_package("openvino").Core()
    choices = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    model = core.compile_model(to_openvino(form), "CPU", choices)
    return lambda *given: [np.array(value) for value in model([np.asarray(one) for one in given]).values()]


RUNS = {"onnxruntime": onnx_run, "openvino": openvino_run}
