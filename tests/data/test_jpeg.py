"""Usual JPEG files are decoded by OpenCV, to the pixels that Pillow gives; all others by Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from singleshot.data import images, jpeg
from singleshot.data.images import read_image
from singleshot.errors import UserError


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    smooth = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    return Image.fromarray((noise // 4 + smooth // 2).astype(np.uint8)).convert(mode)


def saved(image: Image.Image, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return file.getvalue()


def by_pillow(content: bytes) -> np.ndarray:
    with images._decoded(content) as image:
        return images.to_rgb(image)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (17, 33), (64, 48)])
def test_the_same_pixels(mode: str, size: tuple[int, int]) -> None:
    for how in (
        {},
        {"quality": 30},
        {"quality": 100, "subsampling": 0},
        {"subsampling": 1, "progressive": True},
        {"restart_marker_blocks": 3, "optimize": True},
        {"comment": "a text", "icc_profile": b"colours", "dpi": (72, 72)},
    ):
        content = saved(picture(*size, mode), **how)
        assert jpeg.usual_size(content) == size
        assert np.array_equal(read_image(content), by_pillow(content))


def test_an_upright_photograph_with_exif_is_usual_and_a_turned_one_is_not() -> None:
    for orientation in (1, 3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(picture(8, 16), exif=exif.tobytes())
        assert (jpeg.usual_size(content) is not None) == (orientation == 1)
        assert np.array_equal(read_image(content), by_pillow(content))


def test_what_is_not_usual_is_left_to_pillow() -> None:
    content = saved(picture(16, 16))
    frame = content.index(b"\xff\xc0")
    for changed in (
        saved(picture(8, 8).convert("CMYK")),
        content + b"more",
        content[:-200],
        content[:frame] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" + content[frame:],  # RGB, not YCbCr
        content[: frame + 4] + b"\x0c" + content[frame + 5 :],  # 12 bits
        content[: frame + 5] + b"\x00\x00" + content[frame + 7 :],  # no height
        content[:frame] + content[frame : frame + 19] * 2 + content[frame + 19 :],
        b"\xff\xd8\xff\xd9",
        b"",
    ):
        assert jpeg.usual_size(changed) is None


def test_any_change_of_a_byte_gives_pixels_or_an_error_as_pillow_does() -> None:
    content = saved(picture(24, 24))
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(2):
            changed[int(rng.integers(2, len(content)))] = int(rng.choice([255, int(rng.integers(256))]))
        found = []
        for read in (read_image, by_pillow):
            try:
                found.append(read(bytes(changed)))
            except UserError as error:
                found.append(str(error))
        assert type(found[0]) is type(found[1])
        assert np.array_equal(found[0], found[1])


def test_limits_hold_as_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(UserError, match="more than the limit of 50"):
        read_image(saved(picture(16, 16)))
