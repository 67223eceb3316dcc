"""int8: post-training quantisation of exported graphs, with the layers that cost most kept in float32."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from singleshot.engines.quantise.quantiser import Quantiser, Samples

QUANTISERS = {
    ".xml": ("singleshot.engines.quantise.openvino", "OpenVinoQuantiser"),
    ".onnx": ("singleshot.engines.quantise.onnx", "OnnxQuantiser"),
}
"""The suffix of a float32 file, and the class that makes int8 files from it."""


def packages_for(suffix: str) -> tuple[str, ...]:
    """The packages that the quantiser of a kind of file needs."""
    return cast("tuple[str, ...]", importlib.import_module(QUANTISERS[suffix][0]).PACKAGES)


def quantiser_of(path: Path, samples: Samples) -> Quantiser:
    """The quantiser of a float32 file."""
    module, name = QUANTISERS[path.suffix]
    return cast(Quantiser, getattr(importlib.import_module(module), name)(path, samples))
