"""int8 files of both formats: what is int8 in them, and that they are always the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_files import SIZE, need, small_spec

from singleshot.engines import find_engine
from singleshot.engines.options import Options
from singleshot.engines.quantise import packages_for, quantiser_of
from singleshot.engines.quiet import load_package
from singleshot.spec import Spec

pytestmark = pytest.mark.slow  # the import of nncf alone takes seconds

LAYERS = 5  # of the small network; two of them are last ones


def small_network(spec: Spec) -> Any:
    """A network of five convolutions, with a sigmoid and a decoding after the last two, as a model of ONNX."""
    need("onnx")
    onnx = load_package("onnx")
    helper, kinds, random = onnx.helper, onnx.TensorProto, np.random.default_rng(0)
    height, width = SIZE
    constants, nodes = [], []

    def weights(name: str, *shape: int) -> None:
        values = random.normal(0, 1 / np.sqrt(shape[1] * 9 if len(shape) > 1 else 9), shape).astype(np.float32)
        constants.append(helper.make_tensor(name, kinds.FLOAT, shape, values.ravel()))

    def convolution(name: str, given: str, inside: int, out: int, groups: int = 1) -> None:
        weights(f"{name}.weight", out, inside // groups, 3, 3)
        weights(f"{name}.bias", out)
        inputs = [given, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, pads=[1] * 4, group=groups))

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes))

    constants += [
        helper.make_tensor("half", kinds.FLOAT, [], [128.0]),
        helper.make_tensor("rows", kinds.INT64, [3], [0, height * width, -1]),
        helper.make_tensor("best", kinds.INT64, [1], [20]),
        helper.make_tensor("axis", kinds.INT64, [1], [2]),
    ]
    node("Cast", ["images"], "float", to=kinds.FLOAT)
    node("Transpose", ["float"], "planes", perm=[0, 3, 1, 2])
    node("Sub", ["planes", "half"], "centred")
    node("Div", ["centred", "half"], "pixels")
    convolution("first", "pixels", 3, 8)
    node("Relu", ["first"], "one")
    convolution("depthwise", "one", 8, 8, groups=8)
    node("Relu", ["depthwise"], "two")
    convolution("third", "two", 8, 8)
    node("Add", ["third", "one"], "added")
    convolution("class_logits", "added", 8, 1)
    convolution("box_deltas", "added", 8, 4)
    for name in ("class_logits", "box_deltas"):
        node("Transpose", [name], f"{name}_last", perm=[0, 2, 3, 1])
        node("Reshape", [f"{name}_last", "rows"], f"{name}_rows")
    node("Sigmoid", ["class_logits_rows"], "all_scores")
    node("Squeeze", ["all_scores", "axis"], "flat_scores")
    nodes.append(helper.make_node("TopK", ["flat_scores", "best"], ["scores", "places"], name="ranked"))
    node("Unsqueeze", ["places", "axis"], "places3")
    constants.append(helper.make_tensor("four", kinds.INT64, [3], [1, 1, 4]))
    node("Tile", ["places3", "four"], "places4")
    node("GatherElements", ["box_deltas_rows", "places4"], "deltas", axis=1)
    node("Exp", ["deltas"], "boxes")
    node("Sub", ["places", "places"], "labels")
    given = helper.make_tensor_value_info("images", kinds.UINT8, ["B", *SIZE, 3])
    outputs = [
        helper.make_tensor_value_info("boxes", kinds.FLOAT, ["B", 20, 4]),
        helper.make_tensor_value_info("scores", kinds.FLOAT, ["B", 20]),
        helper.make_tensor_value_info("labels", kinds.INT64, ["B", 20]),
    ]
    graph = helper.make_graph(nodes, "small", [given], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"singleshot": spec.to_text()})
    return model


class Noise:
    """Eight images."""

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(1)
        for _ in range(len(self)):
            yield {"images": random.integers(0, 256, (1, *SIZE, 3), np.uint8)}


@pytest.fixture(scope="module", params=[".xml", ".onnx"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A quantiser of the small network, and its int8 file."""
    for package in packages_for(request.param):
        need(package)
    folder = tmp_path_factory.mktemp("int8")
    original = folder / f"float{request.param}"
    spec = small_spec()
    if request.param == ".onnx":
        original.write_bytes(small_network(spec).SerializeToString())
    else:
        openvino = load_package("openvino")
        model = openvino.Core().read_model(small_network(spec).SerializeToString())
        model.set_rt_info(spec.to_text(), ["singleshot"])
        openvino.save_model(model, original, compress_to_fp16=False)
    quantiser = quantiser_of(original, Noise())
    quantiser.write(folder / f"int8{request.param}")
    return quantiser, folder / f"int8{request.param}"


def weights_in_float(path: Path) -> list[str]:
    """The layers of a file whose weights are not int8."""
    if path.suffix == ".onnx":
        graph = load_package("onnx").load(path).graph
        made = {name: node for node in graph.node for name in node.output}
        layers = [node for node in graph.node if node.op_type == "Conv"]
        return [node.name for node in layers if getattr(made.get(node.input[1]), "op_type", "") != "DequantizeLinear"]
    model = load_package("openvino").Core().read_model(path)
    layers = [node for node in model.get_ordered_ops() if node.get_type_name().endswith("Convolution")]
    return [node.get_friendly_name() for node in layers if not int8_below(node.input_value(1).get_node())]


def int8_below(node: Any) -> bool:
    inputs = [one.get_node() for one in node.input_values()]
    here = node.get_type_name() == "FakeQuantize" or node.get_output_element_type(0).to_string() in ("i8", "u8")
    return here or any(map(int8_below, inputs))


def quantised_after_the_last_layers(path: Path, quantiser: Any) -> list[str]:
    outside = set(quantiser._outside)
    if path.suffix == ".onnx":
        graph = load_package("onnx").load(path).graph
        readers = [(node.name, name) for node in graph.node if node.name in outside for name in node.input]
        quantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        return [name for name, read in readers if read in quantised]
    model = load_package("openvino").Core().read_model(path)
    nodes = [node for node in model.get_ordered_ops() if node.get_friendly_name() in outside]
    return [
        node.get_friendly_name()
        for node in nodes
        if any(value.get_node().get_type_name() == "FakeQuantize" for value in node.input_values())
    ]


def test_all_layers_and_nothing_after_the_last(made: tuple[Any, Path]) -> None:
    quantiser, path = made
    assert len(quantiser.layers) == len(quantiser.shapes) == LAYERS
    assert weights_in_float(path) == []
    assert quantised_after_the_last_layers(path, quantiser) == []
    spec, run = find_engine(path).open(path, Options(threads=1))
    assert (spec.precision, spec.class_names) == ("int8", ("cat", "dog"))
    boxes, scores, _ = run(next(iter(Noise()))["images"], np.array([SIZE], np.float32))
    assert np.isfinite(boxes).all()
    assert (scores > 0).all()


def test_the_same_file_again_and_layers_that_are_kept(made: tuple[Any, Path], tmp_path: Path) -> None:
    quantiser, path = made
    again = tmp_path / path.name
    quantiser.write(again)
    ending = ".bin" if path.suffix == ".xml" else path.suffix
    assert again.with_suffix(ending).read_bytes() == path.with_suffix(ending).read_bytes()
    again.unlink()
    quantiser.write(again, quantiser.layers[-1:])
    assert len(weights_in_float(again)) == 1


def test_every_layer_costs_something(made: tuple[Any, Path]) -> None:
    quantiser, _ = made
    costs = quantiser.costs()
    assert list(costs) == list(quantiser.layers)
    assert all(cost > 0 for cost in costs.values())
