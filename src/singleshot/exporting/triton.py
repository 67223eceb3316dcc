"""A folder as NVIDIA's Triton server takes it: `config.pbtxt`, and the ONNX file as version 1."""

from __future__ import annotations

import json
import os
from pathlib import Path

from singleshot.engines.graph import Exportable
from singleshot.errors import UserError, shown

_MOST_OF_A_BATCH = 8  # images that the server may put together; the graph itself takes any number
_SHAPES = {"boxes": ("TYPE_FP32", [-1, 4]), "scores": ("TYPE_FP32", [-1]), "labels": ("TYPE_INT64", [-1])}


def write(form: Exportable, file: Path, folder: Path) -> None:
    """Make the folder around an ONNX file, which is moved into it. The folder's name is that of the model.

    Raises `UserError` for a graph whose outputs the server cannot describe ("raw").
    """
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config(form, folder.name), encoding="utf-8")
    os.rename(file, version / "model.onnx")


def check(outputs: str) -> None:
    """Raise `UserError` for a choice of outputs that has no such folder."""
    if outputs != "detections":
        raise UserError(f"format triton has the detections as its outputs, not {shown(outputs)}; leave --outputs out")


def config(form: Exportable, name: str) -> str:
    """The text of `config.pbtxt`. Dimensions do not count the batch; -1 is any number."""
    spec = form.spec
    height, width = spec.input_size or (-1, -1)
    kind = ("TYPE_UINT8", [height, width, 3]) if spec.input == "image" else ("TYPE_FP32", [3, height, width])
    inputs = {"images": kind, "limits": ("TYPE_FP32", [2])}
    most = spec.batch[1] or _MOST_OF_A_BATCH
    count = ("TYPE_INT64", [1])  # one number for each image: [B] in the graph
    parts = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {min(most, _MOST_OF_A_BATCH)}",
        *(_entry("input", one, *inputs[one]) for one in form.input_names),
        *(_entry("output", one, *_SHAPES.get(one, count), scalar=one == "count") for one in form.output_names),
        "dynamic_batching { }",
    ]
    return "\n".join(parts) + "\n"


def _entry(field: str, name: str, kind: str, shape: list[int], *, scalar: bool = False) -> str:
    told = f'{field} [ {{ name: "{name}" data_type: {kind} dims: [ {", ".join(map(str, shape))} ]'
    return f"{told}{' reshape { shape: [ ] }' if scalar else ''} }} ]"
