"""A detector as an ONNX model. ONNX Runtime runs it, and so does everything else that reads ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch

from singleshot.engines.graph import Exportable
from singleshot.engines.graph_file import KEY
from singleshot.engines.quiet import load_package
from singleshot.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx

OPSET = 18


def write_onnx(form: Exportable, path: Path) -> None:
    """Write the `.onnx` file of a detector, or nothing. Raises `UserError` if a package is missing."""
    write_atomically(path, to_onnx(form).SerializeToString())


def to_onnx(form: Exportable) -> onnx.ModelProto:
    """The graph of a detector, with its `Spec` in the metadata.

    Greedy NMS becomes `NonMaxSuppression`; batch norms are folded into the convolutions before them.
    """
    model = translated(form.program(), form.input_names, form.output_names)
    if form.spec.input_size is None:  # the exporter names shapes alike that are not, and ONNX Runtime believes it
        del model.graph.value_info[:]
    _plain(model)
    said = model.metadata_props.add()
    said.key, said.value = KEY, form.spec.to_text()
    return model


def translated(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """A graph of PyTorch in ONNX, with the names of its inputs and outputs."""
    for package in ("onnx", "onnxscript"):
        load_package(package)
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            optimize=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            custom_translation_table={torch.ops.singleshot.survivors.default: _suppression()},
        )
    assert made is not None
    return made.model_proto


def _suppression() -> Any:
    """`survivors` in ONNX. The boxes are sorted, so their ranks serve as scores: no two are equal."""
    from onnxscript import FLOAT, opset18

    op: Any = opset18

    def translated(boxes: Any, labels: Any, valid: Any, iou: float, classes: int, most: int) -> Any:
        shape = op.Shape(valid)  # [R, N]
        count = op.Gather(shape, op.Constant(value_int=1))
        ranks = op.Range(count, op.Constant(value_int=0), op.Constant(value_int=-1))  # N ... 1
        scores = op.Where(valid, op.Cast(ranks, to=FLOAT.dtype), op.Constant(value_float=0.0))
        scores = op.Unsqueeze(scores, op.Constant(value_ints=[1]))  # [R, 1, N]
        if classes > 1:
            own = op.Range(op.Constant(value_int=0), op.Constant(value_int=classes), op.Constant(value_int=1))
            own = op.Unsqueeze(own, op.Constant(value_ints=[0, 2]))  # [1, K, 1]
            same = op.Equal(op.Unsqueeze(labels, op.Constant(value_ints=[1])), own)  # [R, K, N]
            scores = op.Where(same, scores, op.Constant(value_float=0.0))
        found = op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[min(iou, 1.0)]),
            op.Constant(value_floats=[0.5]),
        )  # [S, 3]: row, class, box
        place = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)
        marks = op.Expand(op.Constant(value_float=1.0), op.Shape(place, start=0, end=1))
        return op.Greater(op.ScatterND(op.ConstantOfShape(shape), place, marks), op.Constant(value_float=0.5))

    return translated


def _plain(model: onnx.ModelProto) -> None:
    """Remove what the exporter tells of itself: places in the source, names of variables."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for one in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del one.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's report on itself, and warnings about packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
