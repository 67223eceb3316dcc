"""OpenVINO, for `.xml` files, with their weights in a `.bin` file beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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
from singleshot.engines.quiet import load_package
from singleshot.errors import UserError, short
from singleshot.spec import Spec

NAME, TITLE, SUFFIX = "openvino", "OpenVINO", ".xml"
PRECISIONS = ("fp32", "bf16", "int8")
PACKAGES = ("openvino",)
EXTRA: str | None = "openvino"

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def export(form: Any, path: Path) -> None:
    """Write the `.xml` and `.bin` files of a form."""
    from singleshot.engines.openvino_graph import write_openvino

    write_openvino(form, path)


def open(path: Path, options: Options) -> tuple[Spec, Run]:
    """The file, compiled for a device of OpenVINO: "cpu", or another that it finds, such as "gpu"."""
    refuse_no_file(path)
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(f"{path}: {weights.name}, which holds its weights, is not beside it; copy both files")
    engine = load_package("openvino")
    core = engine.Core()
    device = _device(core, options.device)
    try:
        model = core.read_model(path, weights)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    except Exception as error:
        raise UserError(f"{path}: {TITLE} cannot load it ({first_line(error)}); export the model again") from error
    spec = spec_of(text, path, title=TITLE, suffix=SUFFIX)
    inputs = [next(iter(one.get_names()), "") for one in model.inputs]
    outputs = [name for one in model.outputs for name in one.get_names()]
    check_graph(spec, inputs, outputs, path)
    wanted = outputs if spec.outputs == "raw" else list(DETECTIONS)
    bf16 = "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    computed = options.computed(spec.precision, title=TITLE, bf16=bf16, where=f"{path}: ")
    if computed == "int8":  # its layers are in the file; this is for the others
        computed = "bf16" if bf16 and not options.exact else "fp32"
    choices = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[computed]}
    if options.threads is not None:
        choices["INFERENCE_NUM_THREADS"] = str(options.threads)
    try:
        compiled = core.compile_model(model, device, choices)
    except Exception as error:
        raise UserError(f"{path}: {TITLE} cannot compile it ({first_line(error)}); export the model again") from error
    idle: list[Any] = []  # requests: each is for one thread at a time

    def network(images: NDArray[Any], limits: Floats) -> list[NDArray[Any]]:
        """Run the graph; several threads may do so at once."""
        feeds = {IMAGES: images, LIMITS: limits}
        try:
            request = idle.pop() if idle else compiled.create_infer_request()
        except IndexError:  # another thread took it
            request = compiled.create_infer_request()
        try:
            found = request.infer({name: feeds[name] for name in inputs}, share_inputs=True, share_outputs=False)
            copies = [np.array(found[name]) for name in wanted]
        except Exception as error:
            raise UserError(f"{path}: {TITLE} cannot run it ({first_line(error)}); export the model again") from error
        idle.append(request)
        return copies

    return spec, as_run(spec, path, outputs, network)


def _device(core: Any, name: str) -> str:
    """OpenVINO's name of a device: CPU, GPU, GPU.1, NPU."""
    here: list[str] = list(core.available_devices)
    wanted = name.upper().replace(":", ".")
    if wanted not in here and f"{wanted}.0" not in here:
        told = ", ".join(one.lower() for one in here)
        raise UserError(f"device {short(name)} is not one that {TITLE} finds here; expected one of {told}")
    return wanted
