"""int8 for ONNX Runtime, by nncf: pairs of QuantizeLinear and DequantizeLinear, weights per output channel."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from singleshot.engines.graph_file import KEY
from singleshot.engines.quantise.graph_parts import network_part
from singleshot.engines.quantise.quantiser import RANKED, Samples, quiet_nncf
from singleshot.engines.quiet import load_package
from singleshot.spec import Spec

PACKAGES = ("onnx", "onnxruntime", "nncf")

_LAYERS = ("Conv", "ConvTranspose")


class OnnxQuantiser:
    """The model of an `.onnx` file, as `Quantiser` says.

    Weights use half of the range of 8 bits, as `OpenVinoQuantiser` explains.
    """

    PACKAGES = PACKAGES

    def __init__(self, path: Path, samples: Samples) -> None:
        self._onnx, self._nncf, self._runtime = map(load_package, ("onnx", "nncf", "onnxruntime"))
        self.path, self.samples = path, samples
        graph = self._read().graph
        readers: dict[str, list[str]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node.name)
        children = {node.name: [one for name in node.output for one in readers.get(name, ())] for node in graph.node}
        weights = {one.name: tuple(one.dims) for one in graph.initializer}
        found = {node.name: weights[node.input[1]] for node in graph.node if node.op_type in _LAYERS}
        inside, last = network_part(children, found)
        self.layers: Sequence[str] = list(found)
        self.shapes: Sequence[tuple[int, ...]] = list(found.values())
        self._outside = [node.name for node in graph.node if node.name not in inside]
        self._last = [node.output[0] for node in graph.node if node.name in last]

    def write(self, path: Path, keep: Collection[str] = ()) -> None:
        """Write the int8 model; the layers in `keep` stay float32."""
        model = self._quantised(keep)
        said = {one.key: one.value for one in self._read().metadata_props}
        spec = Spec.from_json(json.loads(said[KEY]))
        said[KEY] = replace(spec, precision="int8").to_text()
        del model.metadata_props[:]
        for key, value in said.items():
            one = model.metadata_props.add()
            one.key, one.value = key, value
        path.write_bytes(model.SerializeToString())

    def costs(self) -> Mapping[str, float]:
        """By layer, the squared error of the last layers' outputs, in units of their variance, if only it is int8."""
        model = self._quantised((), compress=False, correct=False)
        feeds = [feed for _, feed in zip(range(RANKED), self.samples, strict=False)]
        wanted = self._outputs(model, (), feeds)
        found: dict[str, float] = {}
        for layer in self.layers:
            error = 0.0
            for got, right in zip(self._outputs(model, (layer,), feeds), wanted, strict=True):
                error += float(((got - right) ** 2).mean() / max(float(right.var()), 1e-12))
            found[layer] = error
        return found

    def _read(self) -> Any:
        return self._onnx.load(self.path)

    def _quantised(self, keep: Collection[str], *, compress: bool = True, correct: bool = True) -> Any:
        nncf = self._nncf
        advanced = nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE,
            disable_bias_correction=not correct,
            backend_params={"compress_weights": compress},
        )
        with quiet_nncf():
            return nncf.quantize(
                self._read(),
                nncf.Dataset(self.samples, dict),
                subset_size=len(self.samples),
                ignored_scope=nncf.IgnoredScope(names=[*self._outside, *keep], validate=False),
                advanced_parameters=advanced,
            )

    def _outputs(self, model: Any, layers: Collection[str], feeds: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
        """The outputs of the last layers with only `layers` in int8, for all feeds together."""
        part = self._onnx.ModelProto()
        part.CopyFrom(model)
        _without(part.graph, layers)
        _ending_in(part.graph, self._last, self._onnx)
        choices = self._runtime.SessionOptions()
        choices.log_severity_level = 4
        session = self._runtime.InferenceSession(part.SerializeToString(), choices, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        rows = [session.run(self._last, {name: feed[name] for name in names}) for feed in feeds]
        return [np.stack([row[place] for row in rows]) for place in range(len(self._last))]


def _without(graph: Any, layers: Collection[str]) -> None:
    """Let all nodes read what they would read without quantisation, but for these layers."""
    made = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.name in layers:
            continue
        for place, name in enumerate(node.input):
            node.input[place] = _plain(name, made)


def _plain(name: str, made: Mapping[str, Any]) -> str:
    """The value before it was quantised."""
    node = made.get(name)
    if node is None or node.op_type != "DequantizeLinear":
        return name
    before = made.get(node.input[0])
    return name if before is None or before.op_type != "QuantizeLinear" else _plain(before.input[0], made)


def _ending_in(graph: Any, outputs: Sequence[str], onnx: Any) -> None:
    """Make these values the outputs of a graph, and remove what they do not need."""
    made = {name: node for node in graph.node for name in node.output}
    needed: set[str] = set()
    stack = list(outputs)
    while stack:
        node = made.get(stack.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            stack += node.input
    nodes = [node for node in graph.node if node.name in needed]
    read = {name for node in nodes for name in node.input}
    inputs = [one for one in graph.input if one.name in read]
    del graph.node[:], graph.output[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs)
