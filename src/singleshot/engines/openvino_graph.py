"""A detector as an OpenVINO model, straight from the graph of PyTorch: ONNX is not needed for it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from singleshot.engines.graph import Exportable
from singleshot.engines.graph_file import KEY
from singleshot.engines.quiet import load_package
from singleshot.files import write_together

Model = Any  # openvino.Model: the package may be missing, and has no types


def write_openvino(form: Exportable, path: Path) -> None:
    """Write the `.xml` and `.bin` files of a detector, or nothing. Raises `UserError` if a package is missing."""
    model = to_openvino(form)
    with TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        load_package("openvino").save_model(model, made, compress_to_fp16=False)
        ends = (".bin", ".xml")  # the .xml is what is opened: it comes last
        write_together((path.with_suffix(end), made.with_suffix(end).read_bytes()) for end in ends)


def to_openvino(form: Exportable) -> Model:
    """The graph of a detector, with its `Spec` in `rt_info`.

    Greedy NMS becomes `NonMaxSuppression`. Batch norms are folded into the convolutions before them.
    """
    model = translated(form.program(), form.input_shapes)
    for port, name in (
        *zip(model.inputs, form.input_names, strict=True),
        *zip(model.outputs, form.output_names, strict=True),
    ):
        port.get_tensor().set_names({name})
    for node in model.get_parameters():
        node.set_friendly_name(form.input_names[model.get_parameter_index(node)])
    model.set_rt_info(form.spec.to_text(), [KEY])
    return model


def translated(program: ExportedProgram, shapes: Sequence[Sequence[int]]) -> Model:
    """A graph of PyTorch in OpenVINO, for inputs of these shapes (-1: free). Raises `UserError` without the package."""
    package = load_package("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suppression = import_module("openvino.frontend.pytorch").ConversionExtension(
            "singleshot.survivors.default", _suppression
        )
        given = [package.PartialShape(list(shape)) for shape in shapes]
        model = package.convert_model(program, input=given, extension=[suppression])
    _stable(model)
    return model


def _above(iou: float) -> Any:
    """OpenVINO suppresses at an IoU equal to its threshold, too: the next number above it is what `>` means."""
    return np.nextafter(np.float32(min(iou, 1.0)), np.float32(2))


def _suppression(context: Any) -> list[Any]:
    """`survivors` in OpenVINO. The boxes are sorted, so their ranks serve as scores: no two are equal."""
    op = import_module("openvino.opset14")

    boxes, labels, valid = (context.get_input(place) for place in range(3))
    iou, classes, most = (context.get_values_from_const_input(place) for place in range(3, 6))

    def number(value: Any, kind: Any = np.int64) -> Any:
        return op.constant(np.asarray(value, kind))

    shape = op.shape_of(valid, "i64")  # [R, N]
    count = op.gather(shape, number(1), number(0))
    ranks = op.convert(op.range(count, number(0), number(-1), "i64"), "f32")  # N ... 1
    scores = op.unsqueeze(op.select(valid, ranks, number(0, np.float32)), number(1))  # [R, 1, N]
    if classes > 1:
        own = number(np.arange(classes)[None, :, None])
        same = op.equal(op.unsqueeze(op.convert(labels, "i64"), number(1)), own)  # [R, K, N]
        scores = op.select(same, scores, number(0, np.float32))
    found = op.non_max_suppression(
        boxes,
        scores,
        number(most),
        number(_above(iou), np.float32),
        number(0.5, np.float32),
        None,
        "corner",
        False,
        "i64",
    ).output(0)  # [S, 3]: row, class, box
    place = op.gather(found, number([0, 2]), number(1))
    marks = op.broadcast(number(1, np.float32), op.gather(op.shape_of(place, "i64"), number([0]), number(0)))
    zeros = op.broadcast(number(0, np.float32), shape)
    return [op.greater(op.scatter_nd_update(zeros, place, marks), number(0.5, np.float32)).output(0)]


def _stable(model: Model) -> None:
    """Make every `TopK` take the first of equal values: by default their order is open.

    The operator's own stable form compares each candidate with each value, most of the time of a small detector. So
    the values are chosen first, in the order of their places, and only those few are sorted by the stable form.
    """
    op = import_module("openvino.opset14")

    for node in model.get_ordered_ops():
        if node.get_type_name() == "TopK":
            said = node.get_attributes()
            number, axis, mode, kind = node.input_value(1), said["axis"], said["mode"], said["index_element_type"]
            chosen = op.topk(node.input_value(0), number, axis, mode, "index", kind, stable=False)
            made = op.topk(chosen.output(0), number, axis, mode, "value", kind, stable=True)
            places = op.gather_elements(chosen.output(1), made.output(1), axis)
            made.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(made.output(0))
            node.output(1).replace(places.output(0))
    model.validate_nodes_and_infer_types()
