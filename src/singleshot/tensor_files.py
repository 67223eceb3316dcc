"""Tensors and text in one safetensors file: the same bytes for the same content, and a checksum of all of it.

The checksum is in the metadata, under "sha256". A file without it (of another program, or of an older version of this
one) is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from singleshot.errors import UserError, some

CHECKSUM = "sha256"
_METADATA = "__metadata__"
_LENGTH = 8  # bytes: the length of the header, little-endian; the header is JSON, padded with spaces to eights


class ChecksumError(UserError):
    """The content of a file is not what was written."""


def packed(tensors: Mapping[str, Tensor], text: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file with its metadata in order and with a checksum.

    The library's own bytes have the metadata in an order that differs from process to process.
    """
    header, data = _split(to_bytes(_apart(tensors)))
    header = {_METADATA: dict(sorted(text.items())), **header}
    header[_METADATA][CHECKSUM] = _checksum(header, data)
    written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    written += b" " * (-len(written) % _LENGTH)
    return b"".join((len(written).to_bytes(_LENGTH, "little"), written, data))


def unpacked(content: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata without the checksum.

    Raises:
        UserError: the bytes are not those of a safetensors file, or (`ChecksumError`) its checksum is another one.
            `where` is the start of messages: the file.
    """
    try:
        tensors = from_bytes(content)
        header, data = _split(content)
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{where}not a safetensors file, or a damaged one ({error})") from error
    text: dict[str, str] = header.get(_METADATA) or {}
    written = text.get(CHECKSUM)
    if written is not None and written != _checksum(header, data):
        raise ChecksumError(
            f"{where}damaged: the content does not have the checksum that was written with it. Take another copy of "
            f"it. (A program that changes it on purpose must leave {CHECKSUM!r} out of the metadata)"
        )
    return tensors, {name: value for name, value in text.items() if name != CHECKSUM}


def refuse_broken(
    tensors: Mapping[str, Tensor], where: str, advice: str, *, infinite: Container[str] = frozenset()
) -> None:
    """Raise `UserError` naming the tensors that are `broken`; `advice` ends the message."""
    if found := broken(tensors, infinite):
        kind = "with NaN or infinite values"
        raise UserError(f"{where}{some(found, f'tensors {kind}', one=f'tensor {kind}')}; {advice}")


def broken(tensors: Mapping[str, Tensor], infinite: Container[str] = frozenset()) -> list[str]:
    """The names of the tensors that have NaN or infinite values. Those in `infinite` may have infinite ones."""
    found = [name for name, value in tensors.items() if not all_finite(value)]
    return [name for name in found if name not in infinite or bool(tensors[name].isnan().any())]


def may_be_infinite(module: nn.Module) -> set[str]:
    """The names of a module's buffers, such as a user's own mask, without the statistics of norms, which are learnt."""
    names = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    return {name for name in names if name.rpartition(".")[2] not in ("running_mean", "running_var")}


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite. It looks at the lowest and the highest: 25 times faster than at each."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(bound) for bound in tensor.detach().aminmax())


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, and each with its own memory, as the library wants it."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        apart[name] = own.clone() if place in seen else own
        seen.add(place)
    return apart


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header: dict[str, Any] = json.loads(content[_LENGTH:end])
    return header, memoryview(content)[end:]


def _checksum(header: Mapping[str, Any], data: memoryview) -> str:
    """Of everything that a file says: names, types and shapes of tensors, metadata, values."""
    text = {name: value for name, value in header.get(_METADATA, {}).items() if name != CHECKSUM}
    said = json.dumps({**header, _METADATA: text}, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(said).digest() + hashlib.sha256(data).digest()).hexdigest()
