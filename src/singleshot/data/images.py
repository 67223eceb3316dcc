"""The only reader of images: a file of any mode and orientation becomes 8-bit RGB."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from singleshot.errors import UserError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k",
})
# fmt: on
"""Suffixes, in lower case, of the files that count as images when a folder is searched."""

# Formats that hold plain pixels. Other formats of Pillow are left out on purpose: EPS starts an interpreter, WMF asks
# the system to draw, and TGA and PCX have no signature, so any file may look like one. HEIF needs a plugin.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "HEIF")

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257  # TIFF tags


def read_image(source: str | Path | bytes) -> NDArray[np.uint8]:
    """Read one image as RGB, the way a viewer shows it.

    EXIF orientation is applied. Grey, palette, CMYK and similar modes are converted. 16 bits are scaled to 8 by the
    range of 16 bits (always value / 257). Transparent pixels are put on white. The first frame of an animation is read.
    `bytes` are the content of a file.

    Returns uint8 [H, W, 3]. Raises UserError with the file and the reason if it cannot be read: a missing, empty or
    truncated file, one that is not an image, a folder, an image of more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with _opened(source) as image:
        image.load()
        return to_rgb(image)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` returns it, from the file's header where that is enough."""
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has swapped the sides already, or not, by its version: ask the file
            tags = getattr(image, "tag_v2", {})
            width, height = int(tags.get(_TIFF_WIDTH, width)), int(tags.get(_TIFF_HEIGHT, height))
        return (width, height) if _orientation(image) >= 5 else (height, width)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a loaded Pillow image as uint8 [H, W, 3], upright, converted as `read_image` says."""
    how = _TRANSPOSE.get(_orientation(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        pixels = _deep_grey(image)
        if how is not None:
            return np.array(Image.fromarray(pixels).transpose(how))
        return pixels
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if how is not None:
        image = image.transpose(how)
    return np.array(image)


def _deep_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Convert one channel of more than 8 bits to RGB, scaled by the range of its type and not by its largest value.

    Pillow's own conversion clips every value at 255. Mode I holds 16 bits in most files (the range is 32 bits when a
    value needs them). The range of mode F is [0, 1], else [0, 255], else 16 bits.
    """
    values = np.asarray(image).astype(np.float64)
    top = float(values.max(initial=0.0))
    if not np.isfinite(values).all():
        raise ValueError("some pixels are NaN or infinite")
    full = 65535.0
    if image.mode == "F":
        full = 1.0 if top <= 1 else 255.0 if top <= 255 else full
    elif image.mode == "I" and top > full:
        full = 2.0**31 - 1
    grey = np.clip(np.rint(values * (255 / full)), 0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels may be good although the EXIF block is damaged
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image. Every error until it is closed becomes a UserError that names it."""
    name = f"image of {len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            image = _identify(file, "" if isinstance(source, bytes) else name)
            with image:
                yield image
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{name}: this is a folder, expected an image file") from error
    except PermissionError as error:
        if os.path.isdir(name):  # on Windows this is the error for a folder
            raise UserError(f"{name}: this is a folder, expected an image file") from error
        raise UserError(f"{name}: no permission to read this file; change its permissions") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: refused as a decompression bomb ({error})") from error
    except MemoryError as error:
        raise UserError(f"{name}: not enough memory to decode this image; make it smaller") from error
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        raise UserError(f"{name}: damaged image, cannot be decoded ({error or type(error).__name__})") from error


def _identify(file: IO[bytes], name: str) -> ImageFile.ImageFile:
    """As `PIL.Image.open`, with an error in place of its warning about large images.

    Turning its warning into an error would change the warning filters of the whole process, for other threads too.
    """
    start = file.read(32)
    if not start:
        raise UserError("empty file (0 bytes)")
    Image.preinit()
    for known in (False, True):
        if known:
            Image.init()
        for form in _FORMATS:
            if form not in Image.OPEN:
                continue
            factory, accept = Image.OPEN[form]
            # A plugin may answer with a string: why it cannot read a file of its own format.
            if accept is not None and (isinstance(answer := accept(start[:16]), str) or not answer):
                continue
            file.seek(0)
            try:
                image = factory(file, name)
            except (SyntaxError, IndexError, TypeError, struct.error):  # how plugins say "not mine"
                continue
            _check_pixels(*image.size)
            return image
    if guess := _looks_like(start):
        raise UserError(f"not an image: {guess}")
    raise UserError("not an image of a known format, or its header is damaged")


def _check_pixels(width: int, height: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UserError(
            f"{width}x{height} = {width * height:,} pixels, more than the limit of {limit:,}: refused as a possible "
            "decompression bomb. If you trust the image, make it smaller or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def _looks_like(start: bytes) -> str | None:
    """A guess at what a file is that is not an image."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (git lfs pull fetches the file itself)"
    if start.startswith((b"%PDF", b"%!PS")):
        return "a PDF or PostScript document"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # the excerpt ends within a character
            return None
        text = start[: error.start].decode("utf-8")
    if not text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return None
    return f"it holds text ({text.strip()[:24]!r}...)"
