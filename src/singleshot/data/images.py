"""The only reader of images: a file of any mode and orientation becomes 8-bit RGB."""

from __future__ import annotations

import errno
import io
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from singleshot.data import jpeg
from singleshot.data.deep import DeepRange, DeepValues, usual_range, warn_if_dark
from singleshot.data.pixel_budget import PixelBudget
from singleshot.errors import UserError, shown
from singleshot.files import not_a_file
from singleshot.reduced import Reduced, Seen, reduced_for

Pixels = NDArray[np.uint8]

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
BUDGET = PixelBudget(128_000_000)
"""How many pixels all threads of this process decode at the same time: one image at the limit, or ten photographs."""

_DEEP_COLOUR = "singleshot_deep_colour"  # in the `info` of an image: whether its file has 16 bits for each colour
_REDUCED = "singleshot_reduced"  # in the `info` of an image: how its pixels lie in it, if they are fewer
_REDUCIBLE = ("JPEG", "MPO")
_STRIP = 1_000_000  # pixels that are converted at a time

_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257  # TIFF tags


def read_image(
    source: str | Path | bytes, *, deep_range: DeepRange | Sequence[float] | None = None, warn: bool = False
) -> Pixels:
    """Read one image as RGB, the way a viewer shows it.

    EXIF orientation is applied. Grey, palette, CMYK and similar modes are converted. Transparent pixels are put on
    white. The first frame of an animation is read. `bytes` are the content of a file.

    `deep_range` is for grey images of more than 8 bits: the values that become 0 and 255, such as (0, 4095) for 12 bits
    in a file of 16. Without it 16 bits are scaled to 8 by the range of 16 bits (always value / 257). With `warn`, the
    first image of the process that is nearly black for this reason is named in the log.

    The threads of a process decode `BUDGET.most` pixels at a time, so that many large images need not fit in memory.

    Returns uint8 [H, W, 3]. Raises UserError with the file and the reason if it cannot be read: a missing, empty or
    truncated file, one that is not an image, a folder, a pipe, an image of more pixels than
    `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    return read_reduced(source, None, deep_range=deep_range, warn=warn)[0]


def read_reduced(
    source: str | Path | bytes,
    seen: Seen | None,
    *,
    deep_range: DeepRange | Sequence[float] | None = None,
    warn: bool = False,
) -> tuple[Pixels, Reduced]:
    """As `read_image`, but a JPEG file is decoded smaller where a network sees as much (`reduced_for`).

    Returns the picture, and how it lies in the image. Without `seen` it is the whole image.
    """
    chosen = DeepRange.of(deep_range)
    if (found := _usual_jpeg(source, seen)) is not None:
        return found
    with _decoded(source, seen) as image:
        pixels = to_rgb(image, chosen, warn_as=_name(source) if warn else None)
        return pixels, image.info.get(_REDUCED) or Reduced((pixels.shape[0], pixels.shape[1]))


def _usual_jpeg(source: str | Path | bytes, seen: Seen | None) -> tuple[Pixels, Reduced] | None:
    """The picture of a JPEG file that is as usual; None: Pillow reads it, or says what is wrong with it."""
    content = source if isinstance(source, bytes) else _jpeg_content(os.fspath(source))
    size = None if content is None else jpeg.usual_size(content)
    if content is None or size is None or size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        return None
    reduced = reduced_for(seen, size)
    with BUDGET.hold(size[0] * size[1]):
        pixels = jpeg.decoded(content, reduced)
    return None if pixels is None else (pixels, reduced)


def _jpeg_content(path: str) -> bytes | None:
    """The bytes of a file that begins as a JPEG; None if it does not, is very large, or cannot be read."""
    try:
        with _open_file(path) as file:
            start = file.read(len(jpeg.START))
            if start != jpeg.START or os.fstat(file.fileno()).st_size > jpeg.LARGEST_FILE:
                return None
            return start + file.read()
    except (UserError, OSError):
        return None


@dataclass(frozen=True)
class Decoded:
    """What is known of an image that could be decoded."""

    size: tuple[int, int]  # (height, width) as `read_image` returns it
    deep: DeepValues | None  # of an image of more than 8 bits


def decode(source: str | Path | bytes) -> Decoded:
    """Decode an image as `read_image` does, and say what it is. Raises UserError as `read_image`."""
    with _decoded(source) as image:
        rgb = to_rgb(image)
        deep = _deep_values(image) if _is_deep(image) else None
        if image.info.get(_DEEP_COLOUR):
            usual = usual_range("I;16", 0)
            deep = DeepValues(257.0 * int(rgb.min()), 257.0 * int(rgb.max()), usual, colour=True)
        return Decoded((rgb.shape[0], rgb.shape[1]), deep)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` returns it, from the file's header where that is enough."""
    with _opened(path) as image, BUDGET.hold(image.width * image.height):  # the EXIF block may stand behind the pixels
        width, height = image.size
        if image.format == "TIFF":  # Pillow has swapped the sides already, or not, by its version: ask the file
            tags = getattr(image, "tag_v2", {})
            width, height = int(tags.get(_TIFF_WIDTH, width)), int(tags.get(_TIFF_HEIGHT, height))
        return (width, height) if _orientation(image) >= 5 else (height, width)


def to_rgb(image: Image.Image, deep_range: DeepRange | None = None, *, warn_as: str | None = None) -> Pixels:
    """The pixels of a loaded Pillow image as uint8 [H, W, 3], upright, converted as `read_image` says.

    `warn_as` is the name of the image in the warning; without it there is none.

    It is converted in strips: beside the image itself and the result, little memory is needed.
    """
    convert = _conversion(image, deep_range, warn_as)
    orientation = _orientation(image)
    width, height = image.size
    upright = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    # Rows of the file are rows or columns of the upright image, from its beginning or from its end.
    along = upright.swapaxes(0, 1) if orientation >= 5 else upright
    for top, strip in _strips(image):
        rows = convert(strip)
        if orientation in _TRANSPOSE:
            rows = rows.transpose(_TRANSPOSE[orientation])
        first = height - top - strip.height if orientation in (3, 4, 6, 7) else top
        target = along[first : first + strip.height]
        target[:] = np.asarray(rows).swapaxes(0, 1) if orientation >= 5 else np.asarray(rows)
    return upright


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image of about a million pixels, from the top to the bottom, each with its first row."""
    rows = max(1, _STRIP // max(1, image.width))
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _conversion(
    image: Image.Image, deep_range: DeepRange | None, warn_as: str | None
) -> Callable[[Image.Image], Image.Image]:
    """How a strip of this image becomes RGB."""
    if _is_deep(image):
        transparent = image.info.get("transparency")
        if deep_range is None:
            values = _deep_values(image)
            deep_range = values.usual
            if warn_as is not None:
                warn_if_dark(warn_as, values)
        scale = deep_range.to_8_bits  # Pillow's own conversion clips every value at 255

        def grey(strip: Image.Image) -> Image.Image:
            values = np.asarray(strip)
            pixels = scale(values)
            if isinstance(transparent, int):
                pixels[values == transparent] = 255
            return Image.fromarray(pixels).convert("RGB")

        return grey
    if image.has_transparency_data:

        def on_white(strip: Image.Image) -> Image.Image:
            rgba = strip.convert("RGBA")
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, rgba).convert("RGB")

        return on_white
    return lambda strip: strip if strip.mode == "RGB" else strip.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _deep_values(image: Image.Image) -> DeepValues:
    """The smallest and the largest value of a deep image, and the range of its type."""
    strips = (np.asarray(strip) for _, strip in _strips(image))
    bounds = [(float(values.min()), float(values.max())) for values in strips]
    least, largest = min(low for low, _ in bounds), max(high for _, high in bounds)
    if not np.isfinite(bounds).all():
        raise ValueError("some pixels are NaN or infinite")
    return DeepValues(least, largest, usual_range(image.mode, largest))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels may be good although the EXIF block is damaged
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def _decoded(source: str | Path | bytes, seen: Seen | None = None) -> Iterator[Image.Image]:
    """Open an image and decode its pixels, when they have their place in the budget."""
    with _opened(source) as image, BUDGET.hold(image.width * image.height):
        # Pillow drops the lower bits of colours. After loading, only what is noted here tells that there were any.
        image.info[_DEEP_COLOUR] = image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(t.args) for t in image.tile)
        if seen is not None and image.format in _REDUCIBLE:
            image.info[_REDUCED] = _draft(image, seen)
        image.load()
        _check_pixels(*image.size)  # an icon may hold a larger picture than its header says
        yield image


def _draft(image: ImageFile.ImageFile, seen: Seen) -> Reduced:
    """Tell Pillow to decode a JPEG file smaller, where a network sees as much; how the picture lies in the image."""
    width, height = image.size
    orientation = _orientation(image)
    size = (width, height) if orientation >= 5 else (height, width)
    reduced = reduced_for(seen, size, turned=orientation != 1)
    if reduced.factor > 1:
        image.draft(None, (width // reduced.factor, height // reduced.factor))
        if image.size != (reduced.picture[::-1] if orientation < 5 else reduced.picture):
            raise ValueError(f"its picture is {image.size[0]}x{image.size[1]} at 1/{reduced.factor} of its size")
    return reduced


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image. Every error until it is closed becomes a UserError that names it."""
    path = "" if isinstance(source, bytes) else os.fspath(source)
    name = _name(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else _open_file(path) as file:
            image = _identify(file, path)
            with image:
                yield image
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: refused as a decompression bomb ({error})") from error
    except MemoryError as error:
        raise UserError(f"{name}: not enough memory to decode this image; make it smaller") from error
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):
            reason = error.strerror or str(error)
            raise UserError(f"{name}: cannot be read ({reason}); check the path and the disk") from error
        raise UserError(f"{name}: damaged image, cannot be decoded ({error or type(error).__name__})") from error


def _name(source: str | Path | bytes) -> str:
    """An image in messages."""
    return f"image of {len(source)} bytes" if isinstance(source, bytes) else shown(os.fspath(source))


def _open_file(path: str) -> IO[bytes]:
    """Open a regular file. Nothing else is opened: a pipe would wait for its writer, and a device may do anything."""
    try:
        if (other := not_a_file(path)) is not None:
            raise UserError(f"this is {other}, expected an image file")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise UserError("no such file") from error
    except PermissionError as error:
        raise UserError("no permission to read this file; change its permissions") from error
    except OSError as error:  # a circle of links, a name that is too long, a broken disk
        raise UserError(f"cannot be read ({error.strerror or error}); check the path and the disk") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"no file can have this name ({shown(error)}); check where the name comes from") from error


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
    if width < 1 or height < 1:
        raise UserError(f"an image of {width}x{height} has no pixels")
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
