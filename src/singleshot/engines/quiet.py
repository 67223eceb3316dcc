"""The import of engines' packages: named when they are missing, and with their telemetry switched off."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from singleshot.errors import UserError

EXTRAS = {
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "openvino",
    "nncf": "openvino",
}
"""The extra of this package that installs a package."""


def load_package(name: str) -> Any:
    """Import a package of an engine, such as "openvino". It reports nothing about its use.

    Raises:
        UserError: it is not installed, or it does not start. The message has the command that installs it.
    """
    be_quiet()
    install = f"pip install 'singleshot[{EXTRAS[name]}]'"
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == root:
            raise UserError(f"this needs the package {root}, which is not installed: {install}") from None
        raise UserError(f"the package {root} is installed but does not start ({error}); try: {install}") from error
    if name == "onnxruntime" and sys.platform == "win32":
        package.disable_telemetry_events()
    return package


def be_quiet() -> None:
    """Switch off the telemetry of OpenVINO, nncf and ONNX Runtime. They read this at their first import."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # they then take their empty stub
