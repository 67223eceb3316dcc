"""int8 for OpenVINO, by nncf: weights per output channel, and biases without the shift that rounding brings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from singleshot.engines.graph_file import KEY, spec_of
from singleshot.engines.quantise.graph_parts import network_part
from singleshot.engines.quantise.quantiser import RANKED, Samples, quiet_nncf
from singleshot.engines.quiet import load_package

PACKAGES = ("openvino", "nncf")

_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData")


class OpenVinoQuantiser:
    """The model of an `.xml` file, as `Quantiser` says.

    Weights use half of the range of 8 bits. Processors without VNNI (AVX2, the first AVX512) add products of 8 bits in
    16 bits, which saturate with the whole range; so the same file is right on every processor.
    """

    PACKAGES = PACKAGES

    def __init__(self, path: Path, samples: Samples) -> None:
        self._engine, self._nncf = load_package("openvino"), load_package("nncf")
        self._core = self._engine.Core()
        self.path, self.samples = path, samples
        model = self._read()
        nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
        children = {
            name: [port.get_node().get_friendly_name() for out in node.outputs() for port in out.get_target_inputs()]
            for name, node in nodes.items()
        }
        found = [name for name, node in nodes.items() if node.get_type_name() in _LAYERS]
        inside, last = network_part(children, found)
        self.layers: Sequence[str] = found
        self.shapes: Sequence[tuple[int, ...]] = [tuple(nodes[name].input(1).get_shape()) for name in found]
        self._outside = [name for name, node in nodes.items() if name not in inside and not _is_data(node)]
        self._last = [name for name in found if name in last]

    def write(self, path: Path, keep: Collection[str] = ()) -> None:
        """Write the int8 model; the layers in `keep` stay float32."""
        model = self._quantised(keep)
        spec = spec_of(model.get_rt_info([KEY]).astype(str), self.path, title="OpenVINO", suffix=".xml")
        model.set_rt_info(replace(spec, precision="int8").to_text(), KEY)
        self._engine.save_model(model, path, compress_to_fp16=False)

    def costs(self) -> Mapping[str, float]:
        """By layer, the squared error of the last layers' outputs, in units of their variance, if only it is int8."""
        model = self._quantised((), compress=False, correct=False)
        nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
        fakes = [node for node in nodes.values() if node.get_type_name() == "FakeQuantize"]
        owners = {fake.get_friendly_name(): _layers_of(fake) for fake in fakes}
        feeds = [feed for _, feed in zip(range(RANKED), self.samples, strict=False)]
        wanted = self._outputs(model, (), owners, feeds)
        found: dict[str, float] = {}
        for layer in self.layers:
            error = 0.0
            for got, right in zip(self._outputs(model, (layer,), owners, feeds), wanted, strict=True):
                error += float(((got - right) ** 2).mean() / max(float(right.var()), 1e-12))
            found[layer] = error
        return found

    def _read(self) -> Any:
        return self._core.read_model(self.path)

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

    def _outputs(
        self, model: Any, layers: Collection[str], owners: Mapping[str, set[str]], feeds: Sequence[Any]
    ) -> list[np.ndarray[Any, Any]]:
        """The outputs of the last layers with only `layers` in int8, for all feeds together."""
        engine = self._engine
        part = model.clone()
        nodes = {node.get_friendly_name(): node for node in part.get_ordered_ops()}
        for name, own in owners.items():
            if not own & set(layers):
                nodes[name].output(0).replace(nodes[name].input_value(0))
        ends = [engine.opset14.result(nodes[name].output(0)) for name in self._last]
        read = engine.Model(ends, _inputs_of(part, ends))
        compiled = self._core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        names = [next(iter(port.get_names())) for port in compiled.inputs]
        rows = [list(compiled({name: feed[name] for name in names}).values()) for feed in feeds]
        return [np.stack([row[place] for row in rows]) for place in range(len(ends))]


def _inputs_of(model: Any, ends: Sequence[Any]) -> list[Any]:
    """The parameters of a model that these nodes read."""
    seen, stack = set(), list(ends)
    while stack:
        node = stack.pop()
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            stack += [value.get_node() for value in node.input_values()]
    return [one for one in model.get_parameters() if one.get_friendly_name() in seen]


def _is_data(node: Any) -> bool:
    return node.get_type_name() in ("Constant", "Parameter", "Result")


def _layers_of(fake: Any) -> set[str]:
    """The layers that read what a FakeQuantize gives, directly or through nodes that only pass it on."""
    found: set[str] = set()
    stack = [port.get_node() for port in fake.output(0).get_target_inputs()]
    seen: set[str] = set()
    while stack:
        node = stack.pop()
        name = node.get_friendly_name()
        if node.get_type_name() in _LAYERS:
            found.add(name)
        elif name not in seen and node.get_type_name() != "FakeQuantize":
            seen.add(name)
            stack += [port.get_node() for out in node.outputs() for port in out.get_target_inputs()]
    return found
