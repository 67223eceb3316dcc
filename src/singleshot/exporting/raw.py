"""An exported network without its post-processing, used like a detector: what it predicts is ranked by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.engines.exported import ExportedDetector
from singleshot.engines.graph import Exportable
from singleshot.engines.quiet import load_package
from singleshot.postprocess.fixed import detections
from singleshot.structures import Anchors

Arrays = Sequence[NDArray[Any]]
Graph = Callable[[Mapping[str, NDArray[Any]]], Arrays]


def raw_model(path: Path, form: Exportable, detector: Detector) -> ExportedDetector:
    """The network of a file with `outputs` "raw", and the post-processing of its form: to compare it with others."""
    graph = _GRAPHS[path.suffix](path, form)

    def run(images: NDArray[Any], limits: NDArray[np.float32]) -> tuple[Any, Any, Any]:
        size = images.shape[1:3] if form.spec.input == "image" else images.shape[2:4]
        feeds = {"images": images, "limits": limits}
        values = graph({name: feeds[name] for name in form.input_names})
        found = {name: torch.from_numpy(np.array(value)) for name, value in zip(form.output_names, values, strict=True)}
        anchors, keep = found.pop("anchors"), found.pop("keep", None)
        counts = detector.anchors_for((int(size[0]), int(size[1]))).counts
        ranked = detections(form.postprocess, found, Anchors(anchors, counts), keep, torch.from_numpy(limits))
        there = ranked.scores > 0
        boxes = torch.where(there[..., None], ranked.boxes, 0.0)
        return boxes.numpy(), ranked.scores.numpy(), torch.where(there, ranked.labels, 0).numpy()

    return ExportedDetector(replace(form.spec, outputs="detections"), run, path=str(path))


def _onnx(path: Path, form: Exportable) -> Graph:
    session = load_package("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(list(form.output_names), dict(feeds))


def _openvino(path: Path, form: Exportable) -> Graph:
    compiled = load_package("openvino").compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        found = compiled(dict(feeds), share_outputs=False)
        return [found[name] for name in form.output_names]

    return run


def _torch(path: Path, form: Exportable) -> Graph:
    module = torch.export.load(path).module(check_guards=False)  # as `engines.torch_program`

    def run(feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        with torch.inference_mode():
            found: Sequence[Tensor] = module(*(torch.from_numpy(feeds[name]) for name in form.input_names))
        return [value.numpy() for value in found]

    return run


_GRAPHS: dict[str, Callable[[Path, Exportable], Graph]] = {".onnx": _onnx, ".xml": _openvino, ".pt2": _torch}
