"""Load a weights file into a backbone: torchvision's files, safetensors, or one of our own detectors."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

from singleshot import torch_files
from singleshot.backbones.backbone import Backbone
from singleshot.errors import UserError, short, some
from singleshot.files import not_a_file
from singleshot.paths import to_path
from singleshot.source import Source
from singleshot.tensor_files import refuse_broken, unpacked

WRAPPERS = ("module.", "model.", "backbone.", "body.", "state_dict.")
"""Prefixes that other programs (and our own detectors) put before a backbone's keys."""
PIXELS = "pixels"
"""The note, or metadata, of a file with the pixel values that its weights expect, as JSON."""
OPTIONS = "backbone_options"
"""The metadata of a file with the options of the backbone that its weights belong to, as JSON."""
FOREIGN = (".caffemodel", ".tflite")
"""The endings of files that only `singleshot import` reads."""
_COUNTERS = "num_batches_tracked"  # old files do not have it, and only an average over all batches would use it


def load_backbone_weights(backbone: Backbone, path: str | Path) -> None:
    """Copy a file's weights into `backbone`.

    The file is safetensors, or a PyTorch file, read with PyTorch's restricted reader (tensors only; no code is run).
    Keys are torchvision's, with or without the prefixes in `WRAPPERS`. The classifier is ignored; for VGG-16 it becomes
    fc6 and fc7.

    If the file says which pixel values its weights expect, the backbone says so too (`Backbone.pixels`).

    Raises:
        UserError: the file is missing, is not a weights file, or does not fit. The message counts all missing and
            unexpected keys and wrong shapes, and names the first ones. The backbone is then unchanged.
    """
    backbone.load_state_dict(fitted(backbone, read_weights(path)), strict=False)


def fitted(backbone: Backbone, source: Source) -> dict[str, Tensor]:
    """The tensors of a file under a backbone's own keys; those that may be missing are left out if they are.

    `Backbone.pixels` becomes what the file says, if it says it.

    Raises:
        UserError: the file does not fit.
    """
    weights = _unwrap(dict(source.tensors), backbone)
    try:
        weights = backbone.adapt_weights(weights)
    except UserError as error:
        raise UserError(f"{source.where}{error}") from error
    own = backbone.state_dict()
    missing = [key for key in own if key not in weights and not _is_optional(key, backbone)]
    unexpected = [
        key
        for key in weights
        if key not in own and not key.startswith(backbone.ignored_weights) and not key.endswith(_COUNTERS)
    ]
    shapes = [
        f"{key} is {tuple(weights[key].shape)}, but the network needs {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    problems = [some(missing, "missing"), some(unexpected, "unexpected"), some(shapes, "of another shape")]
    if any(problems):
        said = "; ".join(filter(None, problems))
        raise UserError(
            f"{source.where}these weights do not fit this {type(backbone).__name__}: {said}. "
            f"Give weights of the same architecture, with torchvision's names"
        )
    fitting = {key: value for key, value in weights.items() if key in own}
    refuse_broken(fitting, source.where, "the file is damaged: use another one")
    if (pixels := told_pixels(source)) is not None:
        backbone.expect(pixels)
    return fitting


def read_weights(path: str | Path) -> Source:
    """What a safetensors file or a PyTorch file that holds only tensors says, on the CPU."""
    path = to_path(path)
    try:
        if (kind := not_a_file(path)) is not None:
            raise UserError(f"{path}: is {kind}; give a weights file")
        if path.suffix.lower() in FOREIGN:
            raise UserError(
                f"{path}: a file of another program; make one of ours of it: "
                f"singleshot import {shlex.quote(str(path))} --out NAME.safetensors"
            )
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # safetensors: 8 bytes of length, then JSON
            return Source(*unpacked(path.read_bytes(), f"{path}: "), where=f"{path}: ")
        return torch_files.read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a weights file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def told_options(source: Source) -> dict[str, Any]:
    """The options of the backbone that a file says its weights belong to (`OPTIONS`); empty: it says nothing."""
    text = source.notes.get(OPTIONS)
    if not isinstance(text, str):
        return {}
    found = _document(text)
    if not isinstance(found, dict):
        raise UserError(f"{source.where}broken metadata: {OPTIONS} is {short(text)}, expected names with values")
    return found


def told_pixels(source: Source) -> str | list[Any] | None:
    """The pixel values that a backbone's file says its weights expect (`PIXELS`); None: it says nothing."""
    text = source.notes.get(PIXELS)
    if not isinstance(text, str):
        return None
    found = _document(text)
    if not isinstance(found, str | list):
        raise UserError(f"{source.where}broken metadata: {PIXELS} is {short(text)}, expected a name or three lists")
    return found


def _document(text: str) -> Any:
    """What a text of JSON says; None if it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor on the CPU, from a file for `read_weights`."""
    return dict(read_weights(path).tensors)


def _unwrap(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Strip the prefix (of `WRAPPERS`) that most of the backbone's keys have; drop keys with another prefix."""
    own = backbone.state_dict().keys()
    found: Counter[str] = Counter()
    for key in weights:
        prefix, rest = "", key
        found[prefix] += rest in own
        while wrapper := next((wrapper for wrapper in WRAPPERS if rest.startswith(wrapper)), None):
            prefix, rest = prefix + wrapper, rest[len(wrapper) :]
            found[prefix] += rest in own
    if not found:
        return weights
    prefix, count = found.most_common(1)[0]
    if not count:  # another layout (plain numbers, for example): strip the prefix that all keys share
        prefix = next(
            (prefix for prefix in sorted(found, key=len, reverse=True) if all(k.startswith(prefix) for k in weights)),
            "",
        )
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def _is_optional(key: str, backbone: Backbone) -> bool:
    return key.endswith(_COUNTERS) or key.startswith(backbone.optional_weights)
