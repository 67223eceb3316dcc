"""The one reader: modes, orientations, damaged files."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import singleshot.data.images as images_module
from singleshot.data.images import IMAGE_SUFFIXES, image_size, read_image
from singleshot.errors import UserError

ORIENTATION = 0x0112


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 12, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is of some size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_rgb_is_read_exactly_from_path_string_and_bytes(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    for source in (path, str(path), path.read_bytes()):
        read = read_image(source)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, picture)
    assert image_size(path) == (7, 12)
    assert read_image(path).flags.writeable


def test_a_name_that_says_nothing_does_not_matter(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(picture).save(path, "PNG")
    np.testing.assert_array_equal(read_image(path), picture)


def test_grey_and_bilevel_have_three_equal_channels(tmp_path: Path, picture: np.ndarray) -> None:
    grey = picture[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_image(tmp_path / "l.png"), np.repeat(grey[:, :, None], 3, axis=2))
    Image.fromarray(grey > 99).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png")[:, :, 1], np.where(grey > 99, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_by_the_range_of_16_bits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.array([[0, 128, 129, 257 * 7, 65535]], np.uint16)).save(path)
    assert read_image(path)[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [7] * 3, [255] * 3]


def test_16_bits_do_not_stretch_to_the_values_that_occur(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 257, np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png").max() == 1


def test_32_bit_integers_with_values_of_16_bits_are_scaled_alike(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], np.int32)).save(tmp_path / "i.tif")
    assert read_image(tmp_path / "i.tif")[0, :, 0].tolist() == [0, 1, 255]


def test_floats_between_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif")[0, :, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(UserError, match="NaN"):
        read_image(tmp_path / "nan.tif")


def test_transparent_pixels_lie_on_white(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.array([[0, 255, 51]], np.uint8)
    colour = np.array([[[10, 20, 30]] * 3], np.uint8)
    rgba = np.concatenate([colour, alpha[:, :, None]], axis=2)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    # 51 is a fifth: 10 / 5 + 255 * 4 / 5 = 206, ...
    assert read_image(tmp_path / "rgba.png")[0].tolist() == [[255] * 3, [10, 20, 30], [206, 208, 210]]
    la = Image.merge("LA", [Image.fromarray(np.array([[100, 100]], np.uint8)), Image.fromarray(alpha[:, :2])])
    la.save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[0, :, 0].tolist() == [255, 100]


def test_palette_with_and_without_a_transparent_entry(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png")[0].tolist() == [[200, 0, 0], [0, 0, 200]]
    image.save(tmp_path / "p_trns.png", transparency=1)
    assert read_image(tmp_path / "p_trns.png")[0].tolist() == [[200, 0, 0], [255, 255, 255]]
    Image.fromarray(np.array([[5, 9]], np.uint8)).save(tmp_path / "l_trns.png", transparency=9)
    assert read_image(tmp_path / "l_trns.png")[0, :, 0].tolist() == [5, 255]


def test_cmyk(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow make red
    ink.save(tmp_path / "cmyk.jpg", quality=100)
    red = read_image(tmp_path / "cmyk.jpg").reshape(-1, 3).mean(0)
    np.testing.assert_allclose(red, [255, 0, 0], atol=3)


def test_strips_give_the_same_pixels_in_every_mode(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mode and orientation, converted in strips of two rows and at once."""
    grey = picture[:, :, 0]
    rgb, deep = Image.fromarray(picture), grey.astype(np.uint16) * 200
    alpha = Image.fromarray(picture[:, :, 1])
    images = [rgb, rgb.convert("L"), rgb.convert("1"), rgb.convert("CMYK"), rgb.quantize(16), Image.fromarray(deep)]
    images += [Image.merge("LA", (Image.fromarray(grey), alpha)), Image.merge("RGBA", (*rgb.split(), alpha))]
    images += [Image.fromarray(deep.astype(np.int32) * 9), Image.fromarray(deep.astype(np.float32) / 99)]
    paths = []
    for image in images:
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            paths.append(tmp_path / f"{image.mode.replace(';', '')}_{orientation}.tif")
            image.save(paths[-1], exif=exif)
    image = rgb.quantize(16)
    paths.append(tmp_path / "transparent.png")
    image.save(paths[-1], transparency=bytes(range(0, 160, 10)))
    whole = [read_image(path) for path in paths]
    monkeypatch.setattr(images_module, "_STRIP", 24)
    for path, expected in zip(paths, whole, strict=True):
        np.testing.assert_array_equal(read_image(path), expected, err_msg=path.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "link.jpg").symlink_to("pipe.jpg")
        for name, reason in {"pipe": "a named pipe", "link": "a named pipe", "socket": "a socket"}.items():
            for read in (read_image, image_size):
                with pytest.raises(UserError, match=f"{name}.jpg: this is {reason}, expected an image file"):
                    read(tmp_path / f"{name}.jpg")
    with pytest.raises(UserError, match="this is a device"):
        read_image(os.devnull)


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\ud800.jpg", "a" * 300 + ".jpg", "circle.jpg"])
def test_a_name_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    for read in (read_image, image_size):
        with pytest.raises(UserError, match="no file can have this name|cannot be read"):
            read(tmp_path / name)


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert read_image(tmp_path / name)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, picture: np.ndarray, suffix: str, value: int) -> None:
    # What a camera stores for an upright picture, by the definition of the tag: where row 0 and column 0 are.
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[value]
    exif = Image.Exif()
    exif[ORIENTATION] = value
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, lossless=True)
    np.testing.assert_array_equal(read_image(path), picture)
    assert image_size(path) == (7, 12)


def test_orientation_of_16_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.array([[0, 65535, 0]], np.uint16)).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [0, 255, 0]


def test_a_wrong_orientation_is_none(tmp_path: Path, picture: np.ndarray) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 99
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_bad_files_are_named_with_a_reason(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(jpeg, "JPEG")
    cases = {
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"Dear reader, this is no picture at all.", "it holds text"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        "noise.jpg": (bytes(range(128, 256)), "not an image"),
        "cut.jpg": (jpeg.getvalue()[:-500], "truncated"),
        "head.jpg": (jpeg.getvalue()[:20], "not an image|damaged"),
        "bomb.png": (png_header(10_000, 9_000), "90,000,000 pixels.*bomb"),
        "large_bomb.png": (png_header(60_000, 60_000), "bomb"),
        "short.png": (png_header(100, 100), "damaged|truncated"),
    }
    for name, (content, reason) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserError, match=reason) as caught:
                read_image(path)
        assert name in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.jpg: no such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="a folder"):
        read_image(tmp_path)
    with pytest.raises(UserError, match="image of 3 bytes"):
        read_image(b"abc")


def test_the_limit_of_pixels_can_be_raised(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(UserError, match="12x7 = 84 pixels"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(path).shape == picture.shape


def test_filters_of_warnings_stay_as_they_are(tmp_path: Path) -> None:
    before = list(warnings.filters)
    (tmp_path / "bomb.png").write_bytes(png_header(10_000, 9_000))
    with pytest.raises(UserError):
        read_image(tmp_path / "bomb.png")
    assert warnings.filters == before


def test_suffixes_are_lower_case() -> None:
    assert {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".webp"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_awkward_files(shared: Path) -> None:
    bad = {
        "LICENSE",
        "SOURCE.txt",
        "broken_data_stream.png",
        "decompression_bomb.ico",
        "png_decompression_dos.png",
        "truncated_image.png",
        "ultrahdr.jpg",  # cut off
        "zero_width.gif",
    }
    for path in sorted((shared / "images" / "awkward").iterdir()):
        if path.name in bad:
            with pytest.raises(UserError, match=path.name):
                read_image(path)
            continue
        read = read_image(path)
        assert read.dtype == np.uint8
        assert read.ndim == 3
        assert read.shape[2] == 3
        assert image_size(path) == read.shape[:2]


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_orientations_of_one_photograph_agree(shared: Path, kind: str) -> None:
    upright = read_image(shared / "images" / "awkward_exif" / f"{kind}_1.jpg").astype(np.int16)[::4, ::4]
    for value in (3, 5, 6, 8):
        turned = read_image(shared / "images" / "awkward_exif" / f"{kind}_{value}.jpg").astype(np.int16)[::4, ::4]
        assert turned.shape == upright.shape
        # Each was compressed by itself and carries its number as a small label.
        assert np.abs(turned - upright).mean() < 5


@pytest.mark.parametrize(("number", "said"), [(errno.EIO, "cannot be read (Input/output"), (None, "damaged image")])
def test_a_disk_that_fails_is_no_damaged_image(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, number: int | None, said: str
) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")

    def fail(self: Image.Image) -> None:
        raise OSError("truncated") if number is None else OSError(number, os.strerror(number))

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UserError, match=rf"a\.png: {re.escape(said)}"):
        read_image(tmp_path / "a.png")
