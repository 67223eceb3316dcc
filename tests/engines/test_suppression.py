"""Greedy NMS of the engines equals ours box by box: with ties, with an IoU exactly at the threshold, without area."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from singleshot.engines.quiet import load_package
from singleshot.ops.nms import class_nms_sorted, nms_sorted
from singleshot.ops.suppression import survivors_in_loops

Engine = Callable[..., NDArray[np.bool_]]


class Suppression(torch.nn.Module):
    def __init__(self, iou: float, classes: int, most: int) -> None:
        super().__init__()
        self.choices = iou, classes, most

    def forward(self, boxes: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        found: Tensor = torch.ops.singleshot.survivors(boxes, labels, valid, *self.choices)
        return found


def program(iou: float, classes: int, most: int) -> torch.export.ExportedProgram:
    free = {0: torch.export.Dim("rows", min=1), 1: torch.export.Dim("boxes", min=2)}
    example = torch.zeros(3, 7, 4), torch.zeros(3, 7, dtype=torch.int64), torch.zeros(3, 7, dtype=torch.bool)
    return torch.export.export(Suppression(iou, classes, most), example, dynamic_shapes=(free, free, free))


def in_onnxruntime(*choices: Any) -> Engine:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'singleshot[export]'")
    from singleshot.engines.onnx_graph import translated

    model = translated(program(*choices), ["boxes", "labels", "valid"], ["alive"])
    session = load_package("onnxruntime").InferenceSession(model.SerializeToString())
    return lambda **given: session.run(None, {one.name: given[one.name] for one in session.get_inputs()})[0]


def in_openvino(*choices: Any) -> Engine:
    pytest.importorskip("openvino", reason="needs openvino: pip install 'singleshot[openvino]'")
    from singleshot.engines.openvino_graph import translated

    model = translated(program(*choices), [(-1, -1, 4), (-1, -1), (-1, -1)])
    compiled = load_package("openvino").Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    read = (0, 1, 2) if len(model.inputs) == 3 else (0, 2)  # labels that nobody reads are left out
    return lambda **given: np.asarray(compiled([list(given.values())[place] for place in read])[0])


ENGINES = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}
CHOICES = [
    (0.5, 5, 400),
    (0.5, 1, 400),
    (0.45, 1, 5),
    (0.3, 4, 3),
    (0.6, 1, 1000),
    (1.0, 1, 100),
    (0.0, 1, 100),
    (2.0, 1, 9),
]
"""IoU, classes, and how many survivors are needed."""


@pytest.mark.parametrize(
    ("engine", "choices"),
    [
        pytest.param(engine, one, marks=() if (engine, one) == ("openvino", CHOICES[0]) else pytest.mark.slow)
        for engine in ENGINES
        for one in CHOICES
    ],
    ids=str,
)
def test_the_operator_of_an_engine_equals_the_loop(engine: str, choices: tuple[float, int, int]) -> None:
    iou, classes, most = choices
    run, random = ENGINES[engine](*choices), np.random.default_rng(0)
    for case in range(60):
        boxes, labels, valid = drawn(random, case % 3, classes)
        given = torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(valid)
        exact = (nms_sorted(given[0], given[2], iou) if classes == 1 else class_nms_sorted(*given, iou)).numpy()
        found = run(boxes=boxes, labels=labels, valid=valid)
        np.testing.assert_array_equal(first(found, labels, classes, most), first(exact, labels, classes, most))


def drawn(random: np.random.Generator, kind: int, classes: int) -> tuple[Any, Any, Any]:
    """Rows of boxes: on a coarse grid, so that many are equal, at the threshold or without area; then others."""
    shape = int(random.integers(1, 6)), int(random.integers(2, 200))
    if kind == 0:
        corner, sides = random.integers(0, 12, (*shape, 2)), random.integers(0, 9, (*shape, 2))
    elif kind == 1:
        corner, sides = random.integers(0, 100, (*shape, 2)) / 3, random.integers(0, 60, (*shape, 2)) / 7
    else:
        corner, sides = random.normal(0, 50, (*shape, 2)), random.gamma(2, 20, (*shape, 2))
    boxes = np.concatenate([corner, corner + sides], -1).astype(np.float32)
    return boxes, random.integers(0, classes, shape), random.random(shape) < 0.8


def first(alive: NDArray[np.bool_], labels: NDArray[np.int64], classes: int, most: int) -> NDArray[np.bool_]:
    """The first `most` survivors of each row and class: more are not promised."""
    kept = np.zeros_like(alive)
    for row in range(len(alive)):
        for one in range(classes):
            places = np.nonzero(alive[row] & ((labels[row] == one) | (classes == 1)))[0]
            kept[row, places[:most]] = True
    return kept


def test_pytorch_computes_it_itself() -> None:
    boxes, labels, valid = map(torch.from_numpy, drawn(np.random.default_rng(1), 0, 3))
    for classes in (1, 3):
        choices = 0.5, classes, 100
        found = torch.ops.singleshot.survivors(boxes, labels, valid, *choices)
        assert torch.equal(found, survivors_in_loops(boxes, labels, valid, *choices))
        assert 0 < found.sum() < valid.sum()
