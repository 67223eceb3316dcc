"""One file holds a detector: safetensors, with everything that is needed to rebuild it in the metadata.

Nothing is unpickled and nothing is imported. Names in the metadata are looked up in the fixed tables of this package's
builders and parts. A user's own builder is passed by the user.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from singleshot.detectors import BUILDERS, Detector
from singleshot.detectors.parts import restore_argument, store_argument
from singleshot.errors import UserError
from singleshot.files import write_atomically
from singleshot.ops.shapes import without_values
from singleshot.spec import Spec
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
    (half the size; outputs change in the third digit). Raises `UserError` for a detector without a known builder, or
    with an argument that cannot be stored.
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
    state = {name: _stored(tensor, half) for name, tensor in detector.state_dict().items()}
    text = {name: json.dumps(value) for name, value in metadata.items()}
    write_atomically(Path(path), to_bytes(state, {"format": FORMAT, **text}))


def _stored(tensor: Tensor, half: bool) -> Tensor:
    # Scales, shifts and statistics stay in 32 bits: they are few, and variances may exceed the range of 16 bits.
    stored = tensor.half() if half and tensor.is_floating_point() and tensor.ndim >= 2 else tensor
    return stored.detach().cpu().contiguous()


def load(
    path: str | Path, *, builder: Callable[..., Detector] | None = None, device: str | torch.device = "cpu"
) -> Detector:
    """Rebuild a detector from its file alone, in eval mode.

    `builder`: the function to build with, for your own detector (`singleshot.detectors.find_builder` finds one by its
    dotted path). Raises `UserError` for a file that is missing, broken, a pickle, or made by an unknown builder.
    """
    path = Path(path)
    metadata = read_metadata(path)
    name = metadata["detector"]
    build = builder or BUILDERS.get(name)
    if build is None:
        raise UserError(
            f"{path}: made by the builder {name!r}, which is not in this package ({', '.join(BUILDERS)}); "
            "if it is your own, pass it: builder=... or --builder package.module:function"
        )
    detector = _build(build, metadata, path, lazily=builder is None)
    # Copies, since tensors in the file begin at any byte. On some processors a convolution with weights that are not
    # aligned differs in the last bit. (Also, the file may be replaced while the detector is in use.)
    state = {
        key: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for key, value in _tensors(path).items()
    }
    expected = detector.state_dict()
    wrong = sorted(state.keys() ^ expected.keys()) or [
        key
        for key, value in state.items()
        if value.shape != expected[key].shape or value.is_floating_point() != expected[key].is_floating_point()
    ]
    if wrong:
        raise UserError(f"{path}: does not fit the detector {name!r}: {', '.join(wrong[:5])} ({len(wrong)} in all)")
    detector.load_state_dict(state, assign=True)
    detector.builder = name
    return detector.to(device).eval()


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
        with without_values() if lazily else nullcontext():
            detector = build(**given)
    except stumbles as error:
        raise UserError(f"{path}: the detector {metadata['detector']!r} cannot be rebuilt: {error}") from error
    detector.arguments = arguments
    detector.class_names, detector.category_ids = tuple(metadata["class_names"]), tuple(metadata["category_ids"])
    return detector


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a file says about its detector: detector, arguments, class_names, category_ids, recipe, metrics, version."""
    path = Path(path)
    with _open(path) as file:
        text = file.metadata() or {}
    if text.get("format") != FORMAT or not text.keys() >= set(_FIELDS):
        lacking = ", ".join(sorted({"format", *_FIELDS} - text.keys())) or "the right format"
        raise UserError(
            f"{path}: holds weights but not a detector (its metadata lacks {lacking}); "
            "expected a file written by singleshot. Give weights of a backbone as backbone_weights"
        )
    try:
        metadata = {name: json.loads(text[name]) for name in _FIELDS}
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: broken metadata: {error}") from error
    kinds = {"detector": str, "arguments": dict, "class_names": list, "category_ids": list}
    for name, kind in kinds.items():
        if not isinstance(metadata[name], kind):
            raise UserError(f"{path}: broken metadata: {name} is {metadata[name]!r}, expected a {kind.__name__}")
    return metadata


def read_spec(path: str | Path) -> Spec:
    """The `Spec` of a file, without building the detector. Raises `UserError` for a file without one."""
    path = Path(path)
    with _open(path) as file:
        text = (file.metadata() or {}).get("spec")
    if text is None:
        raise UserError(f"{path}: has no spec (what surrounds the network); load the detector and save it again")
    try:
        return Spec.from_json(json.loads(text))
    except (json.JSONDecodeError, RecursionError, UserError) as error:
        raise UserError(f"{path}: broken metadata: spec: {error}") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors handle is no dict


def _open(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path}: this is a folder, expected a .safetensors file (a run folder holds best.safetensors)")
    try:
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
            "expected a .safetensors file"
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
