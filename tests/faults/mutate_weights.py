"""Damage to weights files that knows their structure: header, offsets, types, shapes, metadata, values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

DAMAGED = "damaged"
"""How the description begins if the checksum was left as it was: such a file must be refused."""
CHANGED = "changed"
"""... and if there is no checksum any more: such a file may be read, if what it says is possible."""

DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "C64", "F4", "f32", "", "X" * 50)
NUMBERS = (
    0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 2**64, 10**9, 10**18, 10**400, 0.5, 1e-300, 1e308,
    float("nan"), float("inf"),
)  # fmt: skip
OTHERS = (
    None, True, False, "", "x", "0", "\x00", "\ud800", "\u202e", "a\nb", "../../x", "x" * 5_000, [], {}, [None], [[[]]],
    {"type": "FocalLoss"}, {"type": "os.system"}, {"type": None}, {"": 1}, [1] * 3, ["a"] * 50, [0.5, 0.5],
)  # fmt: skip
RAW = (
    "9" * 5_000, "-" + "9" * 5_000, "[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 50_000, "", "nul", "{",
    '{"a":1,"a":2}',
    "NaN", "Infinity", "1e999", '"\\ud800"', "\ufeff{}", "[1," * 20_000, "[" + "0," * 200_000 + "0]",
)  # fmt: skip

Header = dict[str, Any]


def mutated(rng: random.Random, good: bytes) -> tuple[str, bytes]:
    """What was done to a good file, and the file's bytes. All chance comes from `rng`."""
    header, data = parts(good)
    kind = rng.choice((*_CHANGES, *_CHANGES, _bytes))
    if kind is _bytes:
        said, content = _bytes(rng, good)
        return f"{DAMAGED}: {said}", content
    keep = rng.random() < 0.3
    if not keep:
        header.get("__metadata__", {}).pop("sha256", None)
    before = json.dumps(header), bytes(data)
    said = kind(rng, header, data)
    same = (json.dumps(header), bytes(data)) == before
    return f"{DAMAGED if keep and not same else CHANGED}: {said}", joined(header, data)


def parts(content: bytes) -> tuple[Header, bytearray]:
    """The header and the bytes of the tensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), bytearray(content[end:])


def joined(header: Header, data: bytes) -> bytes:
    """The bytes of a file."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(data)


def _bytes(rng: random.Random, good: bytes) -> tuple[str, bytes]:
    """Damage that does not look at the structure, or that breaks the frame of the file."""
    content = bytearray(good)
    length = int.from_bytes(good[:8], "little")
    match rng.randrange(5):
        case 0:
            new = rng.choice((0, 1, length - 1, length + 8, length * 2, len(good), 2**31, 2**63, 2**64 - 1))
            content[:8] = new.to_bytes(8, "little")
            return f"the header's length is {new}", bytes(content)
        case 1:
            size = rng.choice((0, 1, 7, 8, 9, rng.randrange(len(good)), len(good) - 1))
            return f"cut to {size} bytes", bytes(content[:size])
        case 2:
            return "bytes are added", bytes(content) + bytes(rng.randrange(1, 100))
        case 3:  # not in the six letters of the checksum's own key
            place = rng.choice([rng.randrange(8 + length, len(good)), rng.randrange(len(good))])
            if good[max(0, place - 6) : place + 6].find(b"sha256") >= 0:
                place = len(good) - 1
            content[place] ^= 1 << rng.randrange(8)
            return f"a bit of byte {place} is turned", bytes(content)
        case _:
            place = rng.randrange(8 + length, len(good))
            piece = bytes(rng.randrange(256) for _ in range(min(64, len(good) - place)))
            content[place : place + len(piece)] = (
                piece if piece != content[place : place + len(piece)] else b"\1" + piece
            )
            return f"64 bytes at {place} are others", bytes(content)


def _tensor(rng: random.Random, header: Header) -> tuple[str, Any]:
    name = rng.choice([name for name in header if name != "__metadata__"])
    return name, header[name]


def _offsets(rng: random.Random, header: Header, data: bytearray) -> str:
    name, entry = _tensor(rng, header)
    start, end = entry["data_offsets"]
    entry["data_offsets"] = rng.choice((
        [0, 0], [0, len(data)], [len(data), 0], [0, 2**63], [-4, 4], [], [0], [0, 4, 8], None, "x", [0.5, 1.5],
        [start, end + 4], [start + 4, end], [2**64 - 4, 2**64 - 1],
    ))  # fmt: skip
    return f"the offsets of {name}"


def _dtype(rng: random.Random, header: Header, data: bytearray) -> str:
    name, entry = _tensor(rng, header)
    entry["dtype"] = rng.choice(DTYPES)
    return f"the type of {name} is {entry['dtype'][:10]!r}"


def _shape(rng: random.Random, header: Header, data: bytearray) -> str:
    name, entry = _tensor(rng, header)
    shape = entry["shape"]
    entry["shape"] = rng.choice((
        [], [0], [*shape, 1], list(reversed(shape)), [*shape, 2**62], [-1], [2**32, 2**32], [1.5], None, "3", [[3]],
        [1] * 500, [*shape[1:], *shape[:1]],
    ))  # fmt: skip
    return f"the shape of {name} is {str(entry['shape'])[:40]}"


def _names(rng: random.Random, header: Header, data: bytearray) -> str:
    name, entry = _tensor(rng, header)
    if rng.random() < 0.5:
        del header[name]
    new = rng.choice(("more", "", name + ".x", "__metadata__", "\x00", "\ud800", "x" * 10_000, "../a"))
    if rng.random() < 0.7:
        header[new] = entry
    return f"the name of {name} is {new[:20]!r}"


def _entry(rng: random.Random, header: Header, data: bytearray) -> str:
    name, _ = _tensor(rng, header)
    header[name] = rng.choice(
        (*OTHERS, *NUMBERS, {"dtype": "F32"}, {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    )
    return f"the entry of {name}"


def _text(rng: random.Random, header: Header, data: bytearray) -> str:
    """An entry of the metadata as a whole."""
    text = header.get("__metadata__", {})
    if not text or rng.random() < 0.1:
        header["__metadata__"] = rng.choice(
            (None, [], "x", {"format": 3}, {"format": "singleshot"}, {"a": {"b": "c"}}, {})
        )
        return "the metadata as a whole"
    name = rng.choice([name for name in text if name != "sha256"])
    match rng.randrange(3):
        case 0:
            del text[name]
            return f"metadata: {name} is missing"
        case 1:
            text[name] = rng.choice(RAW)
            return f"metadata: {name} is {text[name][:20]!r}"
        case _:
            text[name] = json.dumps(rng.choice((*OTHERS, *NUMBERS)))
            return f"metadata: {name} is {text[name][:20]}"


_OF_A_STATE = ("progress", "made_by")


def _inside(rng: random.Random, header: Header, data: bytearray) -> str:
    """A value within the JSON of an entry of the metadata."""
    text = header.get("__metadata__", {})
    name = rng.choice(
        [
            name
            for name in ("arguments", "arguments", "spec", "class_names", "category_ids", *_OF_A_STATE)
            if name in text
        ]
    )
    tree = json.loads(text[name])
    places = list(_places(tree))
    if not places:
        return "nothing"
    holder, key = rng.choice(places)
    old = holder[key]
    match rng.randrange(5):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1:
            holder[key] = rng.choice(NUMBERS)
        case 2:
            holder[key] = rng.choice(OTHERS)
        case 3 if isinstance(old, int | float):
            holder[key] = rng.choice(
                (-old, old * 10, old + 1, old * 10**6, old / 3, str(old), [old], old**20 if old < 1e10 else 0)
            )
        case 3 if isinstance(old, list) and len(old) < 1000:
            holder[key] = rng.choice((old * 2, old[1:], [old], old * 1000, old[::-1]))
        case _ if isinstance(holder, dict):
            holder[rng.choice(_ARGUMENTS)] = rng.choice((*OTHERS, *NUMBERS))
        case _:
            holder[key] = rng.choice(OTHERS)
    text[name] = json.dumps(tree)
    new = holder.get(key, "missing") if isinstance(holder, dict) else holder[key]
    return f"metadata: {name}: {key} was {str(old)[:30]}, is {str(new)[:30]}"


_ARGUMENTS = (
    "image_size", "max_size", "num_classes", "backbone", "backbone_options", "tower_depth", "channels", "octaves",
    "norm", "anchor_sizes", "aspect_ratios", "box_sizes", "source_maps", "detections", "candidates", "classification",
    "outputs", "iou_head", "pixels", "vote", "frozen_stages", "match_iou", "smallest_scale", "backbone_weights",
    "class_names", "type",
)  # fmt: skip


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def _values(rng: random.Random, header: Header, data: bytearray) -> str:
    """Four bytes of a tensor become NaN, infinite, huge, or others."""
    name, entry = _tensor(rng, header)
    start, end = entry["data_offsets"]
    if end - start < 4:
        return "nothing"
    place = start + 4 * rng.randrange((end - start) // 4)
    new = rng.choice(
        (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", b"\1\0\0\0", rng.randbytes(4))
    )
    data[place : place + 4] = new
    return f"a value of {name} is {new.hex()}"


_CHANGES: tuple[Callable[[random.Random, Header, bytearray], str], ...] = (
    _offsets, _dtype, _shape, _names, _entry, _text, _text, _inside, _inside, _inside, _inside, _values,
)  # fmt: skip
