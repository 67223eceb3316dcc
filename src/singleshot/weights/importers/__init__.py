"""Weights that other projects have trained: one file per layout, recognised by the names and shapes of its tensors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from singleshot.backbones.pretrained import read_tensors
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError, did_you_mean
from singleshot.weights.importers.importer import Importer, built, shapes_of

IMPORTERS = {
    "torchvision_retinanet": "singleshot.weights.importers.torchvision_retinanet",
}
"""The layouts that are read, and the module of the importer of each."""


def find_importer(name: str) -> Importer:
    """The importer of a layout in `IMPORTERS`. Raises `UserError` for another name."""
    if name not in IMPORTERS:
        raise UserError(f"{name!r} is not a known layout; {did_you_mean(name, IMPORTERS, otherwise=_known())}")
    return cast(Importer, importlib.import_module(IMPORTERS[name]))


def import_weights(
    weights: str | Path | Mapping[str, Tensor],
    *,
    layout: str | None = None,
    device: str | torch.device = "cpu",
    **arguments: Any,
) -> Detector:
    """A detector of this package with the weights of another project, in eval mode; nothing is downloaded.

    Args:
        weights: safetensors, a PyTorch file of nothing but tensors (read by PyTorch's restricted reader), or a state
            dict.
        layout: a name of `IMPORTERS`; None: the one that recognises the names and shapes of the tensors.
        device: where the detector lies.
        arguments: those of the builder, such as `class_names`; they win over what the weights tell.

    Raises:
        UserError: no layout, or several, recognise the file; a tensor is missing, unexpected, of another shape or not
            finite; the file cannot be read.
    """
    where = f"{weights}: " if isinstance(weights, str | Path) else ""
    given = read_tensors(weights) if isinstance(weights, str | Path) else dict(weights)
    given = {key.removeprefix("module."): value for key, value in given.items()}
    importer = find_importer(layout) if layout is not None else find_importer(_recognised(given, where))
    return built(given, importer, where=where, **arguments).to(device)


def _recognised(given: Mapping[str, Tensor], where: str) -> str:
    shapes = shapes_of(given)
    names = [name for name in IMPORTERS if find_importer(name).recognises(shapes)]
    if len(names) == 1:
        return names[0]
    if names:
        raise UserError(f"{where}fits several layouts: {', '.join(names)}; name one with layout=...")
    raise UserError(
        f"{where}these weights are in no known layout ({_known()}); the names of the tensors begin with "
        f"{', '.join(list(given)[:3]) or 'nothing: there are none'}. Weights of a backbone go to backbone_weights"
    )


def _known() -> str:
    return f"the layouts are {', '.join(IMPORTERS)}"
