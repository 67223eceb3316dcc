"""ONNX Runtime, for `.onnx` files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from singleshot.engines.engine import Floats, Options, Run
from singleshot.engines.graph_file import (
    DETECTIONS,
    IMAGES,
    KEY,
    LIMITS,
    as_run,
    check_graph,
    first_line,
    refuse_no_file,
    spec_of,
)
from singleshot.engines.onnx_file import metadata
from singleshot.engines.quiet import load_package
from singleshot.errors import UserError, short
from singleshot.spec import Spec

NAME, TITLE, SUFFIX = "onnxruntime", "ONNX Runtime", ".onnx"
PRECISIONS = ("fp32", "int8")  # its convolutions have no bf16 on processors
PACKAGES = ("onnxruntime",)
EXTRA: str | None = "export"


def export(form: Any, path: Path) -> None:
    """Write the `.onnx` file of a form."""
    from singleshot.engines.onnx_graph import write_onnx

    write_onnx(form, path)


def open(path: Path, options: Options) -> tuple[Spec, Run]:
    """A session for the file, on the processor or on CUDA."""
    refuse_no_file(path)
    try:
        told = metadata(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; export the model again, or copy the file again") from None
    spec = spec_of(told.get(KEY), path, title=TITLE, suffix=SUFFIX)
    if options.precision == "bf16":
        raise UserError(f"{path}: {TITLE} does not compute in bf16; take --precision fp32, or export it for openvino")
    options.computed(spec.precision, title=TITLE, bf16=False, where=f"{path}: ")
    runtime = load_package("onnxruntime")
    providers = _providers(runtime, options.device)
    choices = runtime.SessionOptions()
    choices.log_severity_level = 4  # what is wrong is in the exception; nothing else is printed
    choices.intra_op_num_threads = options.threads or 0
    choices.inter_op_num_threads = 1
    choices.add_session_config_entry("session.force_spinning_stop", "1")  # threads sleep when a run has ended
    try:
        session = runtime.InferenceSession(str(path), choices, providers=providers)
    except Exception as error:  # its classes of errors have no public base
        raise UserError(f"{path}: {TITLE} cannot load it ({first_line(error)}); export the model again") from error
    if options.device != "cpu" and session.get_providers()[0] == "CPUExecutionProvider":
        raise UserError(f"device {short(options.device)}: {TITLE} could not start CUDA; take cpu")
    inputs = [one.name for one in session.get_inputs()]
    outputs = [one.name for one in session.get_outputs()]
    check_graph(spec, inputs, outputs, path)
    wanted = outputs if spec.outputs == "raw" else list(DETECTIONS)

    def network(images: NDArray[Any], limits: Floats) -> list[NDArray[Any]]:
        """Run the session; it may be used by several threads at once."""
        feeds = {IMAGES: images, LIMITS: limits}
        try:
            found: list[NDArray[Any]] = session.run(wanted, {name: feeds[name] for name in inputs})
        except Exception as error:
            raise UserError(f"{path}: {TITLE} cannot run it ({first_line(error)}); export the model again") from error
        return found

    return spec, as_run(spec, path, outputs, network)


def _providers(runtime: Any, device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise UserError(f"device {short(device)} is not one of {TITLE}; expected cpu, cuda or cuda:N")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise UserError(
            f"device {device!r}: the installed package onnxruntime has no CUDA (onnxruntime-gpu has it); take cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(match[1] or 0)}), "CPUExecutionProvider"]
