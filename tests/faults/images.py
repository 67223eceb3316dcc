"""Images whose structure was changed: chunks, segments, boxes and tags of every format that is read.

Right is a picture, or a `UserError` of reasonable length, soon and in bounded memory.
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults.kinds import Case, Kind
from PIL import Image

from singleshot.data.images import decode, image_size, read_image
from singleshot.errors import UserError

Rng = np.random.Generator
Parts = list[bytes]

_EDGES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    257,
    32767,
    32768,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


# ------------------------------------------------------------------------------------------------------------ the files
def _picture(rng: Rng, mode: str) -> Image.Image:
    width, height = (int(side) for side in rng.integers(1, 40, 2))
    values = rng.integers(0, 256, (height, width, 4), np.uint8)
    values[: height // 2] //= 64  # something to compress
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(values[:, :, 0].astype(kind) * kind(200))
    rgba = Image.fromarray(values)
    return rgba.quantize(int(rng.integers(2, 200))) if mode == "P" else rgba.convert(mode)


_SAVES: tuple[tuple[str, tuple[str, ...], Callable[[Rng], dict[str, Any]]], ...] = (
    ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), lambda rng: _png_extras(rng)),
    ("JPEG", ("RGB", "L", "CMYK"), lambda rng: {"progressive": bool(rng.integers(2)), **_exif(rng)}),
    ("TIFF", ("RGB", "RGBA", "L", "P", "1", "I;16", "I", "F", "CMYK", "LAB"), lambda rng: _tiff_extras(rng)),
    ("GIF", ("P", "L", "1"), lambda rng: _frames(rng)),
    ("WEBP", ("RGB", "RGBA"), lambda rng: {"lossless": bool(rng.integers(2)), **_exif(rng), **_frames(rng)}),
    ("BMP", ("RGB", "L", "P", "1"), lambda rng: {}),
    ("ICO", ("RGBA", "RGB"), lambda rng: {"bitmap_format": ["bmp", "png"][rng.integers(2)]}),
    ("PPM", ("RGB", "L", "1", "I;16"), lambda rng: {}),
    ("JPEG2000", ("RGB", "RGBA", "L"), lambda rng: {"no_jp2": bool(rng.integers(2))}),
    ("AVIF", ("RGB", "RGBA"), lambda rng: {"speed": 10, **_frames(rng)}),
    ("MPO", ("RGB",), lambda rng: _frames(rng)),
)


def _exif(rng: Rng) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {}
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 10))
    exif[0x010E] = "x" * int(rng.integers(0, 60))
    return {"exif": exif}


def _frames(rng: Rng) -> dict[str, Any]:
    if rng.random() < 0.6:
        return {}
    return {"save_all": True, "append_images": [Image.new("RGB", (5, 5), "red")] * int(rng.integers(1, 4))}


def _png_extras(rng: Rng) -> dict[str, Any]:
    return {**_exif(rng), **_frames(rng), "compress_level": int(rng.integers(0, 10))}


def _tiff_extras(rng: Rng) -> dict[str, Any]:
    how = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"][rng.integers(4)]
    return {"compression": how, "big_tiff": bool(rng.random() < 0.2), **_frames(rng)}


def _saved(rng: Rng) -> tuple[str, bytes]:
    form, modes, extras = _SAVES[rng.integers(len(_SAVES))]
    mode, file = modes[rng.integers(len(modes))], io.BytesIO()
    image, choices = _picture(rng, mode), extras(rng)
    try:
        image.save(file, form, **choices)
    except Exception:  # a combination that Pillow does not write
        file = io.BytesIO()
        image.convert("RGB").save(file, form)
    return f"{form} {mode}", file.getvalue()


# ------------------------------------------------------------------------------------------------------ their structure
def _split(content: bytes) -> tuple[Parts, Callable[[Parts], bytes]]:
    """The parts of a file, and how they become a file again (with right checksums and lengths, where it has those)."""
    if content.startswith(b"\x89PNG"):
        return _png_parts(content), lambda parts: content[:8] + b"".join(map(_png_chunk, parts))
    if content.startswith(b"\xff\xd8"):
        return _jpeg_parts(content), b"".join
    if content.startswith(b"RIFF"):
        return _riff_parts(content), _riff_join
    if content[4:8] in (b"ftyp", b"jP  "):
        return _box_parts(content), b"".join
    size = max(1, len(content) // 12)
    return [content[start : start + size] for start in range(0, len(content), size)], b"".join


def _png_parts(content: bytes) -> Parts:
    parts, place = [], 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        parts.append(content[place + 4 : place + 8 + length])
        place += 12 + length
    return parts


def _png_chunk(part: bytes) -> bytes:
    return struct.pack(">I", max(0, len(part) - 4)) + part + struct.pack(">I", zlib.crc32(part))


def _jpeg_parts(content: bytes) -> Parts:
    parts, place = [content[:2]], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        (length,) = struct.unpack(">H", content[place + 2 : place + 4])
        parts.append(content[place : place + 2 + length])
        place += 2 + length
    return [*parts, content[place:]]


def _riff_parts(content: bytes) -> Parts:
    parts, place = [], 12
    while place + 8 <= len(content):
        (length,) = struct.unpack("<I", content[place + 4 : place + 8])
        parts.append(content[place : place + 8 + length + length % 2])
        place += 8 + length + length % 2
    return parts


def _riff_join(parts: Parts) -> bytes:
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _box_parts(content: bytes) -> Parts:
    parts, place = [], 0
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        length = length if length >= 8 else len(content) - place
        parts.append(content[place : place + length])
        place += length
    return parts


# ---------------------------------------------------------------------------------------------------------- the changes
def _number(rng: Rng, part: bytes) -> bytes:
    """A number at some place becomes one at the edge of what its type can hold."""
    width = (1, 2, 4)[rng.integers(3)]
    if len(part) < width:
        return part
    # Headers matter most: mostly near the beginning.
    place = int(rng.integers(0, min(len(part) - width + 1, 64 if rng.random() < 0.7 else 10**9)))
    value = int(rng.choice(_EDGES)) if rng.random() < 0.8 else int(rng.integers(0, 2**32))
    order = "<" if rng.random() < 0.5 else ">"
    written = struct.pack(f"{order}{'BHI'[width // 2]}", value % 256**width)
    return part[:place] + written + part[place + width :]


def _bytes(rng: Rng, part: bytes) -> bytes:
    changed = bytearray(part)
    for _ in range(int(rng.integers(1, 6)) if changed else 0):
        changed[rng.integers(len(changed))] = int(rng.integers(256))
    return bytes(changed)


def _shorter(rng: Rng, part: bytes) -> bytes:
    return part[: int(rng.integers(0, len(part) + 1))]


def _longer(rng: Rng, part: bytes) -> bytes:
    place = int(rng.integers(0, len(part) + 1))
    more = bytes([int(rng.integers(256))]) * int(
        rng.choice((1, 3, 100, 70_000, 2_000_000), p=(0.3, 0.3, 0.3, 0.07, 0.03))
    )
    return part[:place] + more + part[place:]


_CHANGES = (_number, _number, _number, _bytes, _shorter, _longer)


@functools.cache
def _bomb() -> bytes:
    return zlib.compress(bytes(30_000_000), 9)


def _hostile(rng: Rng, parts: Parts) -> tuple[str, bytes]:
    """A part that costs a careless reader much."""
    bomb = _bomb()
    if parts[0].startswith(b"IHDR"):
        made = {
            "zTXt bomb": b"zTXtComment\0\0" + bomb,
            "iTXt bomb": b"iTXtComment\0\1\0\0\0" + bomb,
            "iCCP bomb": b"iCCPname\0\0" + bomb,
            "IDAT bomb": b"IDAT" + bomb,
            "large text": b"tEXtComment\0" + b"x" * 2_000_000,
            "many frames": b"acTL" + struct.pack(">II", 2**31 - 1, 0),
            "long palette": b"PLTE" + bytes(3 * 5000),
            "odd palette": b"PLTE" + bytes(7),
            "long transparency": b"tRNS" + bytes(3000),
            "EXIF in a circle": b"eXIf" + _exif_circle(),
            "EXIF": b"eXIf" + bytes(rng.integers(0, 256, 60, np.uint8)),
        }
    elif parts[0].startswith(b"\xff\xd8"):
        made = {
            "EXIF in a circle": _segment(0xE1, b"Exif\0\0" + _exif_circle()),
            "EXIF": _segment(0xE1, b"Exif\0\0II*\0" + bytes(rng.integers(0, 256, 60, np.uint8))),
            "ICC profile": _segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(1000)),
            "MPF": _segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + bytes(rng.integers(0, 256, 60, np.uint8))),
            "Photoshop": _segment(0xED, b"Photoshop 3.0\x008BIM" + bytes(rng.integers(0, 256, 40, np.uint8))),
            "large comment": _segment(0xFE, b"x" * 65_000) * 30,
            "restart interval": _segment(0xDD, b"\0\1"),
            "another size": _segment(0xC0, struct.pack(">BHHB", 8, 60_000, 1_400, 3) + b"\1\x22\0\2\x11\1\3\x11\1"),
        }
    else:
        made = {"zeros": bytes(5000), "noise": bytes(rng.integers(0, 256, 500, np.uint8)), "IFD": _exif_circle()}
    name = list(made)[rng.integers(len(made))]
    return name, made[name]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _exif_circle() -> bytes:
    """A directory of tags whose next directory, and whose EXIF and GPS directories, are itself."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    entries += struct.pack("<HHII", 0x8825, 4, 1, 8) + struct.pack("<HHII", 0x010E, 2, 2**31, 8)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + entries + struct.pack("<I", 8)


def _tags(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """Change one entry of a TIFF's directory: its tag, type, count or value, or where the next directory is."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 16 or struct.unpack(f"{order}H", content[2:4])[0] != 42:
        return "number", _number(rng, content)
    (start,) = struct.unpack(f"{order}I", content[4:8])
    if start + 2 > len(content):
        return "number", _number(rng, content)
    (count,) = struct.unpack(f"{order}H", content[start : start + 2])
    entry = start + 2 + 12 * int(rng.integers(0, count + 1))
    place, width, what = [(0, 2, "tag"), (2, 2, "type"), (4, 4, "count"), (8, 4, "value")][rng.integers(4)]
    known = (254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347)
    values = known if what == "tag" else range(0, 20) if what == "type" else (*_EDGES, start, len(content))
    value = int(rng.choice(values)) % 256**width
    changed = bytearray(content)
    changed[entry + place : entry + place + width] = struct.pack(f"{order}{'H' if width == 2 else 'I'}", value)
    return f"{what} of a tag is {value}", bytes(changed[: max(len(content), 8)])


def make(rng: Rng, number: int) -> Case:
    """An image of some format and mode with one to three changes."""
    what, content = _saved(rng)
    for _ in range(int(rng.integers(1, 4))):
        if content[:4] in (b"II*\0", b"MM\0*") and rng.random() < 0.7:
            done, content = _tags(rng, content)
            what += f"; {done}"
            continue
        parts, join = _split(content)
        if not parts:
            break
        index, draw = int(rng.integers(len(parts))), rng.random()
        if draw < 0.55:
            change = _CHANGES[rng.integers(len(_CHANGES))]
            parts[index] = change(rng, parts[index])
            done = change.__name__.strip("_")
        elif draw < 0.8:
            done, part = _hostile(rng, parts)
            parts.insert(int(rng.integers(1, len(parts) + 1)), part)
        elif draw < 0.88:
            done = "twice"
            parts.insert(index, parts[index])
        elif draw < 0.94:
            done = "left out"
            del parts[index]
        else:
            done = "in another order"
            parts = [parts[k] for k in rng.permutation(len(parts))]
        content = join(parts)
        what += f"; part {index}: {done}"
    return Case(what, content, name="image.bin")


def check(case: Case, shared: Any, folder: Path) -> None:
    """Read the image from memory and from a file, and compare what is said about it."""
    path = folder / "a.jpg"
    path.write_bytes(case.content)
    sizes: list[tuple[int, ...] | None] = []
    longest = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own: about odd tags, a palette with transparency
        for read in (image_size, lambda file: read_image(file.read_bytes()), lambda file: decode(file).size):
            try:
                found = read(path)
            except UserError as error:
                longest = max(longest, len(str(error)))
                sizes.append(None)
                continue
            if isinstance(found, np.ndarray):
                assert found.dtype == np.uint8
                assert found.ndim == 3
                assert found.shape[2] == 3
                found = found.shape[:2]
            sizes.append(found)
    assert longest < 1000, "a long message"
    said, from_memory, from_file = sizes
    assert from_memory == from_file
    # Of two EXIF blocks, which no right file has, Pillow takes another one after decoding: the sides may be swapped.
    assert from_memory is None or sorted(said or ()) == sorted(from_memory), f"{said} in the header, not {from_memory}"


KIND = Kind(
    "images with changed structure: read, or refused with one message",
    make,
    check,
    cases=10_000,
    fast=60,
    seconds=10.0,
    memory=800,
)
