"""Imports weights of other projects: one file per layout, recognised by the names and shapes of the tensors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.devices import find_device
from singleshot.errors import UserError, did_you_mean
from singleshot.source import Source
from singleshot.weights.importers.importer import Importer, built, opened

IMPORTERS = {
    "caffe_refinedet": "singleshot.weights.importers.caffe_refinedet",
    "caffe_ssd": "singleshot.weights.importers.caffe_ssd",
    "iou_aware_retinanet": "singleshot.weights.importers.iou_aware_retinanet",
    "lufficc_ssd": "singleshot.weights.importers.lufficc_ssd",
    "luuuyi_refinedet": "singleshot.weights.importers.luuuyi_refinedet",
    "mmdetection_retinanet": "singleshot.weights.importers.mmdetection_retinanet",
    "mmdetection_ssd": "singleshot.weights.importers.mmdetection_ssd",
    "ssd_pytorch": "singleshot.weights.importers.ssd_pytorch",
    "tensorflow_ssd": "singleshot.weights.importers.tensorflow_ssd",
    "torchvision_retinanet": "singleshot.weights.importers.torchvision_retinanet",
    "torchvision_ssd": "singleshot.weights.importers.torchvision_ssd",
    "torchvision_ssdlite": "singleshot.weights.importers.torchvision_ssdlite",
}
"""The name of each layout, and the module of its importer."""


def find_importer(name: str) -> Importer:
    """The importer of a layout in `IMPORTERS`. Raises `UserError` for any other name."""
    if name not in IMPORTERS:
        raise UserError(f"{name!r} is not a known layout; {did_you_mean(name, IMPORTERS, otherwise=_known())}")
    return cast(Importer, importlib.import_module(IMPORTERS[name]))


def import_weights(
    weights: str | Path | Mapping[str, Tensor],
    *,
    layout: str | None = None,
    class_names: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    **arguments: Any,
) -> Detector:
    """Build a detector of this package with the weights of another project, in eval mode. Nothing is downloaded.

    Args:
        weights: a safetensors file, a PyTorch file that holds only tensors (read by PyTorch's restricted reader), or a
            state dict.
        layout: a name of `IMPORTERS`; None: the one that recognises the names and shapes of the tensors.
        class_names: the names of the classes, in the order of the weights, without a background. None: the file's own,
            else "class 1", "class 2", ...
        device: the device of the detector.
        arguments: arguments of the builder, such as `image_size`; they take precedence over what the weights say.

    Raises:
        UserError: no layout recognises the file, or several do; a tensor is missing, unexpected, not finite or of
            another shape; the file cannot be read.
    """
    found = find_device(device)
    source = opened(weights)
    importer = find_importer(layout if layout is not None else recognised(source))
    return built(source, importer, class_names=class_names, **arguments).to(found)


def fits(source: Source) -> list[str]:
    """The names of the layouts that recognise a file."""
    return [name for name in IMPORTERS if find_importer(name).recognises(source)]


def recognised(source: Source) -> str:
    """The name of the one layout of a file. Raises `UserError` if there is none, or more than one."""
    names = fits(source)
    if len(names) == 1:
        return names[0]
    if names:
        raise UserError(f"{source.where}fits several layouts: {', '.join(names)}; name one with layout=...")
    raise UserError(
        f"{source.where}these weights have no known layout ({_known()}); the names of the tensors begin with "
        f"{', '.join(list(source.tensors)[:3]) or 'nothing: there are none'}. "
        "docs/how_to/your_old_weights.md says what loads; weights of a backbone alone are given as backbone_weights"
    )


def _known() -> str:
    return f"the layouts are {', '.join(IMPORTERS)}"
