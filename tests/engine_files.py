"""Tiny graphs in the form of exported models, written by hand. Each finds one box; its score is the mean brightness."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from singleshot.engines.quiet import EXTRAS, load_package
from singleshot.preprocess import Pixels, Stretch
from singleshot.spec import Spec

SIZE = (8, 16)  # height, width


def need(package: str) -> None:
    """Skip the test where a package is missing. It is not imported: whoever does that first has to keep it quiet."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}: pip install 'singleshot[{EXTRAS[package]}]'")


def small_spec(**changes: Any) -> Spec:
    """Two classes, images of 8x16."""
    values: dict[str, Any] = {"input_size": SIZE, "input": "image", **changes}
    return Spec(("cat", "dog"), (3, "d"), Stretch(SIZE, Pixels.named("imagenet_rgb")), None, **values)


def onnx_model(
    spec: Spec | None, *, label: int = 1, box: tuple[float, ...] = (2, 1, 10, 7), names: str = "blsc"
) -> Any:
    """The graph as a model of ONNX. `names`: which of boxes, labels, scores and count it gives."""
    need("onnx")
    onnx = load_package("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    whole = spec is None or spec.input == "image"
    shape: list[Any] = ["B", *SIZE, 3] if whole else ["B", 3, *SIZE]
    given = helper.make_tensor_value_info("images", kinds.UINT8 if whole else kinds.FLOAT, shape)
    constants = [
        helper.make_tensor("box", kinds.FLOAT, [1, 1, 4], box),
        helper.make_tensor("label", kinds.INT64, [1, 1], [label]),
        helper.make_tensor("largest", kinds.FLOAT, [], [255.0]),
        helper.make_tensor("axes", kinds.INT64, [3], [1, 2, 3]),
        helper.make_tensor("last", kinds.INT64, [2], [2, 3]),
        helper.make_tensor("none", kinds.FLOAT, [], [0.0]),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=1),
        helper.make_node("Squeeze", ["mean", "last"], ["level"]),
        helper.make_node("Div", ["level", "largest"], ["scores"]),
        helper.make_node("Mul", ["mean", "none"], ["zero"]),
        helper.make_node("Squeeze", ["zero", "axes1"], ["zero3"]),
        helper.make_node("Add", ["zero3", "box"], ["boxes"]),
        helper.make_node("Cast", ["zero"], ["zeros"], to=kinds.INT64),
        helper.make_node("Squeeze", ["zeros", "last"], ["zeros2"]),
        helper.make_node("Add", ["zeros2", "label"], ["labels"]),
        helper.make_node("ReduceMax", ["zeros", "axes"], ["count"], keepdims=0),
    ]
    constants.append(helper.make_tensor("axes1", kinds.INT64, [1], [3]))
    outputs = {
        "b": helper.make_tensor_value_info("boxes", kinds.FLOAT, ["B", 1, 4]),
        "s": helper.make_tensor_value_info("scores", kinds.FLOAT, ["B", 1]),
        "l": helper.make_tensor_value_info("labels", kinds.INT64, ["B", 1]),
        "c": helper.make_tensor_value_info("count", kinds.INT64, ["B"]),
    }
    graph = helper.make_graph(nodes, "tiny", [given], [outputs[name] for name in names], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if spec is not None:
        helper.set_model_props(model, {"other": "x", "singleshot": spec.to_text()})
    return model


def raw_model(spec: Spec, values: dict[str, Any]) -> Any:
    """A graph of 8-bit images that gives constants, with one row of predictions for each image."""
    need("onnx")
    onnx = load_package("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    given = helper.make_tensor_value_info("images", kinds.UINT8, ["B", *SIZE, 3])
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["float", "all"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["zero"]),
    ]
    constants = [
        helper.make_tensor("all", kinds.INT64, [4], [0, 1, 2, 3]),
        helper.make_tensor("none", kinds.FLOAT, [], [0.0]),
    ]
    outputs = []
    for name, value in values.items():
        array = np.asarray(value, np.float32)
        constants.append(helper.make_tensor(f"{name} value", kinds.FLOAT, array.shape, array.ravel()))
        nodes.append(helper.make_node("Add", ["zero", f"{name} value"], [name]))
        outputs.append(helper.make_tensor_value_info(name, kinds.FLOAT, array.shape))
    graph = helper.make_graph(nodes, "raw", [given], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"singleshot": spec.to_text()})
    return model


def write_raw(path: Path, spec: Spec, values: dict[str, Any]) -> Path:
    """A file of `raw_model`."""
    return (
        _save_onnx(path, raw_model(spec, values))
        if path.suffix == ".onnx"
        else _save(path, raw_model(spec, values), spec)
    )


def write_onnx(path: Path, spec: Spec | None, **changes: Any) -> Path:
    """An `.onnx` file. Skips the test where a package is missing."""
    return _save_onnx(path, onnx_model(spec, **changes))


def _save_onnx(path: Path, model: Any) -> Path:
    need("onnxruntime")
    path.write_bytes(model.SerializeToString())
    return path


def write_openvino(path: Path, spec: Spec | None, **changes: Any) -> Path:
    """An `.xml` file with its `.bin` file. Skips the test where a package is missing."""
    return _save(path, onnx_model(spec, **changes), spec)


def _save(path: Path, graph: Any, spec: Spec | None) -> Path:
    need("openvino")
    openvino = load_package("openvino")
    model = openvino.Core().read_model(graph.SerializeToString())
    if spec is not None:
        model.set_rt_info(json.dumps(spec.to_json()), ["singleshot"])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


WRITE = {".onnx": write_onnx, ".xml": write_openvino}
