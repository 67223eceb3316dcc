"""One file holds a detector: safetensors, with everything that is needed to rebuild it in the metadata.

Nothing is unpickled and nothing is imported. Names in the metadata are looked up in the fixed tables of this package's
builders and parts. A user's own builder is passed by the user.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from singleshot.data.deep import DeepRange
from singleshot.detectors import BUILDERS, Detector
from singleshot.detectors.parts import restore_argument, store_argument
from singleshot.detectors.registry import DEFAULT_PIXELS
from singleshot.devices import find_device
from singleshot.errors import UserError, short
from singleshot.files import not_a_file, write_atomically
from singleshot.ops.shapes import without_values
from singleshot.paths import to_path
from singleshot.spec import Spec
from singleshot.tensor_files import all_finite, may_be_infinite, packed, refuse_broken, unpacked
from singleshot.version import __version__

FORMAT = "singleshot"
_FIELDS = ("detector", "arguments", "class_names", "category_ids", "recipe", "metrics", "version")


def save(
    detector: Detector,
    path: str | Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a detector to a file from which `load` rebuilds it. The file is written completely or not at all.

    `recipe` and `metrics` are stored in the metadata. With `half` the weights of convolutions are stored in 16 bits
    (half the size; outputs change in the third digit). The same content gives the same bytes. Raises `UserError` for a
    detector without a known builder, with an argument that cannot be stored, or with NaN or infinite weights.
    """
    if detector.builder is None:
        raise UserError(
            "this detector was made without a builder, so a file cannot say how to rebuild it; make it with a builder "
            "function that is decorated with singleshot.detectors.remembers_arguments"
        )
    own = {id(parameter) for parameter in detector.parameters()}
    network = detector.network
    if isinstance(network, nn.Module) and any(id(parameter) not in own for parameter in network.parameters()):
        raise UserError(
            "detector.network was replaced by a module with its own weights, and they would not be in this file; "
            "set detector.network = None to save the detector's own network, or write a builder for the new one"
        )
    arguments = {}
    for name, value in detector.arguments.items():
        try:
            arguments[name] = store_argument(value)
        except UserError as error:
            raise UserError(f"argument {name!r} of {detector.builder}: {error}") from error
    metadata = {
        "detector": detector.builder,
        "arguments": arguments,
        "class_names": list(detector.class_names),
        "category_ids": list(detector.category_ids),
        "recipe": recipe,
        "metrics": metrics,
        "version": __version__,
        "spec": detector.spec.to_json(),
    }
    state = detector.state_dict()
    advice = "such a detector finds nothing; was its learning rate too high?"
    refuse_broken(state, f"{path}: not written: ", advice, infinite=may_be_infinite(detector))
    text = {name: json.dumps(value) for name, value in metadata.items()}
    stored = {name: _stored(tensor, half) for name, tensor in state.items()}
    write_atomically(to_path(path), packed(stored, {"format": FORMAT, **text}))


def _stored(tensor: Tensor, half: bool) -> Tensor:
    # Scales, shifts and statistics stay in 32 bits: they are few, and variances may exceed the range of 16 bits.
    if not half or not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    short = tensor.half()
    return short if all_finite(short) else tensor


def load(
    path: str | Path, *, builder: Callable[..., Detector] | None = None, device: str | torch.device = "cpu"
) -> Detector:
    """Rebuild a detector from its file alone, in eval mode.

    `builder`: the function to build with, for your own detector (`singleshot.detectors.find_builder` finds one by its
    dotted path). Raises `UserError` for a file that is missing, broken, a pickle, made by an unknown builder, or with
    NaN or infinite weights, and for a device that is not here. A file is broken if its checksum
    (`singleshot.tensor_files`) is not that of its content.
    """
    path, device = to_path(path), find_device(device)
    read_metadata(path)  # a foreign file is refused before it is read as a whole
    tensors, text = unpacked(path.read_bytes(), f"{path}: ")
    metadata = _metadata(text, path)
    name = metadata["detector"]
    build = builder or BUILDERS.get(name)
    if build is None:
        raise UserError(
            f"{path}: made by the builder {name!r}, which is not in this package ({', '.join(BUILDERS)}); "
            "if it is your own, pass it: builder=... or --builder package.module:function"
        )
    detector = _build(build, metadata, path, lazily=builder is None)
    # Copies, since tensors in a file begin at any byte. On some processors a convolution with weights that are not
    # aligned differs in the last bit.
    state = {}
    while tensors:
        key, value = tensors.popitem()
        state[key] = value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
    advice = "the file is damaged, or its training diverged: take another one"
    refuse_broken(state, f"{path}: ", advice, infinite=may_be_infinite(detector))
    expected = detector.state_dict(keep_vars=True)
    wrong = sorted(state.keys() ^ expected.keys()) or [
        key
        for key, value in state.items()
        if value.shape != expected[key].shape or value.is_floating_point() != expected[key].is_floating_point()
    ]
    if wrong:
        raise UserError(f"{path}: does not fit the detector {name!r}: {', '.join(wrong[:5])} ({len(wrong)} in all)")
    _tie(state, expected, f"{path}: ")
    detector.load_state_dict(state, assign=True)
    detector.builder = name
    detector.deep_range = _deep_range(text, path)
    return detector.to(device).eval()


def _tie(state: dict[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Let tensors that are one in the detector be one in the state. A file has the values of each."""
    first: dict[int, str] = {}
    for name, tensor in own.items():
        one = first.setdefault(id(tensor), name)
        if one == name:
            continue
        if not torch.equal(state[one], state[name]):
            raise UserError(f"{where}{one} and {name} differ, but in this detector they are one tensor")
        if isinstance(tensor, nn.Parameter) and not isinstance(state[one], nn.Parameter):
            state[one] = nn.Parameter(state[one], requires_grad=tensor.requires_grad)
        state[name] = state[one]


def _build(build: Callable[..., Detector], metadata: dict[str, Any], path: Path, *, lazily: bool) -> Detector:
    classes = {name: metadata[name] for name in ("class_names", "category_ids")}
    accepted = inspect.signature(build).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values()):
        classes = {name: value for name, value in classes.items() if name in accepted}
    # A file may contain anything, and this package's builders may fail on it in any way. Errors of a user's own builder
    # are for the user to correct, so they are not caught.
    stumbles: tuple[type[Exception], ...] = (Exception,) if lazily else (TypeError, ValueError)
    try:
        arguments = {key: restore_argument(value) for key, value in metadata["arguments"].items()}
        given = {**arguments, **classes}
        if "backbone_weights" in given:
            given["backbone_weights"] = None  # they are in this file, and the backbone's may no longer exist
        if lazily:
            given.setdefault("pixels", DEFAULT_PIXELS)
        with without_values() if lazily else nullcontext():
            detector = build(**given)
    except stumbles as error:
        raise UserError(f"{path}: the detector {metadata['detector']!r} cannot be rebuilt: {error}") from error
    detector.arguments = arguments
    detector.class_names, detector.category_ids = tuple(metadata["class_names"]), tuple(metadata["category_ids"])
    return detector


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a file says about its detector: detector, arguments, class_names, category_ids, recipe, metrics, version."""
    path = to_path(path)
    with _open(path) as file:
        return _metadata(file.metadata() or {}, path)


def _metadata(text: Mapping[str, str], path: Path) -> dict[str, Any]:
    if text.get("format") != FORMAT or not text.keys() >= set(_FIELDS):
        lacking = ", ".join(sorted({"format", *_FIELDS} - text.keys())) or "the right format"
        raise UserError(
            f"{path}: holds weights but not a detector (its metadata lacks {lacking}); "
            f"expected a file written by singleshot{_importable(path)}. Give weights of a backbone as backbone_weights"
        )
    metadata = {name: _document(text[name], name, path) for name in _FIELDS}
    kinds = {"detector": str, "arguments": dict, "class_names": list, "category_ids": list}
    for name, kind in kinds.items():
        if not isinstance(metadata[name], kind):
            raise UserError(f"{path}: broken metadata: {name} is {short(metadata[name])}, expected a {kind.__name__}")
    return metadata


def _deep_range(text: Mapping[str, str], path: Path) -> DeepRange | None:
    """How images are read, which no builder knows. Files of before do not say it."""
    spec = _document(text.get("spec", "{}"), "spec", path)
    try:
        return DeepRange.of(spec.get("deep_range") if isinstance(spec, dict) else None)
    except UserError as error:
        raise UserError(f"{path}: broken metadata: spec: {error}") from error


def _document(text: str, name: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise UserError(f"{path}: broken metadata: {name}: {error}") from error


def read_spec(path: str | Path) -> Spec:
    """The `Spec` of a file, without building the detector. Raises `UserError` for a file without one."""
    path = to_path(path)
    with _open(path) as file:
        text = (file.metadata() or {}).get("spec")
    if text is None:
        raise UserError(f"{path}: has no spec (what surrounds the network); load the detector and save it again")
    tree = _document(text, "spec", path)
    try:
        return Spec.from_json(tree)
    except (UserError, RecursionError) as error:
        raise UserError(f"{path}: broken metadata: spec: {error}") from error


def _open(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path}: this is a folder, expected a .safetensors file (a run folder holds best.safetensors)")
    try:
        if (kind := not_a_file(path)) is not None:
            raise UserError(f"{path}: this is {kind}, expected a .safetensors file")
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        last = path.with_name("last.safetensors")
        there = path.name == "best.safetensors" and last.is_file()
        raise UserError(f"{path}: no such file{f'; the run was not validated: take {last}' if there else ''}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    # A safetensors file starts with the length of its header, which may be any bytes, followed by a JSON object.
    if start[8:9] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        raise UserError(
            f"{path}: this is a pickle (a PyTorch .pt/.pth file), and reading one may run any code in it; "
            f"expected a .safetensors file{_importable(path)}"
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file ({error}){_importable(path)}") from error


def _importable(path: Path) -> str:
    """What to type for a file of another program, for the end of a message."""
    return f"; for a detector of another program: singleshot import {shlex.quote(str(path))} --out NAME.safetensors"
