from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from singleshot.errors import UserError
from singleshot.image_input import to_tensor

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
CHW = torch.from_numpy(RGB.transpose(2, 0, 1).copy())


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_all_forms_of_one_image_are_one_tensor(png: Path) -> None:
    sources = [png, str(png), Image.fromarray(RGB), RGB, CHW, Image.open(png)]
    for source in sources:
        tensor = to_tensor(source).pixels
        assert tensor.dtype == torch.uint8
        assert torch.equal(tensor, CHW)


def test_only_files_have_a_path(png: Path) -> None:
    assert to_tensor(png).path == to_tensor(str(png)).path == str(png)
    assert to_tensor(RGB).path is None
    assert to_tensor(Image.open(png)).path is None


def test_any_memory_layout_is_welcome_and_nothing_is_shared() -> None:
    frozen = RGB.copy()
    frozen.flags.writeable = False
    assert torch.equal(to_tensor(frozen).pixels, CHW)
    assert torch.equal(to_tensor(RGB[..., ::-1]).pixels, CHW.flip(0))  # OpenCV's order, turned
    assert torch.equal(to_tensor(np.asfortranarray(RGB)[1:, ::2]).pixels, CHW[:, 1:, ::2])
    mine = RGB.copy()
    tensor = to_tensor(mine).pixels
    mine[:] = 0
    assert torch.equal(tensor, CHW)


def test_grey_becomes_three_equal_channels() -> None:
    grey = RGB[..., 0]
    expected = CHW[:1].expand(3, -1, -1)
    for source in (grey, grey[..., None], Image.fromarray(grey), torch.from_numpy(grey.copy()), CHW[:1]):
        assert torch.equal(to_tensor(source).pixels, expected)


def test_floats_become_float32() -> None:
    for dtype in (torch.float16, torch.float32, torch.float64, torch.bfloat16):
        tensor = to_tensor((CHW / 255).to(dtype)).pixels
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, CHW / 255, atol=0.01)
    assert not to_tensor((CHW / 255).requires_grad_()).pixels.requires_grad


def test_pil_modes_and_orientation(tmp_path: Path) -> None:
    clear = np.zeros((2, 3, 4), np.uint8)
    assert (to_tensor(Image.fromarray(clear, "RGBA")).pixels == 255).all()  # transparent is laid on white
    assert to_tensor(Image.new("1", (3, 2), 1)).pixels.tolist() == [[[255] * 3] * 2] * 3
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    turned = np.rot90(RGB, -1).transpose(2, 0, 1).copy()
    assert torch.equal(to_tensor(Image.open(tmp_path / "turned.png")).pixels, torch.from_numpy(turned))
    assert torch.equal(to_tensor(tmp_path / "turned.png").pixels, torch.from_numpy(turned))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (RGB.transpose(2, 0, 1), r"channels first; expected \[H, W, 3\]: array.transpose\(1, 2, 0\)"),
        (np.zeros((5, 7, 4), np.uint8), "alpha channel"),
        (np.zeros((2, 5, 7, 3), np.uint8), r"a batch; give a list of its images: list\(array\)"),
        (np.zeros((5, 7, 5), np.uint8), r"shape \[5, 7, 5\] is not an image"),
        (np.zeros(5, np.uint8), r"shape \[5\] is not an image"),
        (np.zeros((0, 7, 3), np.uint8), "no pixels"),
        (RGB / 255, "array of float64 is not an image; expected uint8"),
        (RGB.astype(np.uint16), "array >> 8"),
        (RGB > 3, "array of bool"),
        (RGB.astype(np.int64), "array of int64"),
        (CHW.permute(1, 2, 0), r"channels last; expected \[3, H, W\]: tensor.permute\(2, 0, 1\)"),
        (CHW[None], r"a batch; give a list of its images: list\(tensor\)"),
        (torch.zeros(4, 5, 7), "alpha channel"),
        (torch.zeros(5, 5, 7), r"shape \[5, 5, 7\] is not an image"),
        (torch.zeros(7), r"shape \[7\] is not an image"),
        (torch.zeros(3, 0, 7), "no pixels"),
        (CHW.float(), r"tensor / 255"),
        (CHW / 255 - 0.5, "do not normalise the image, since the detector does that itself"),
        (CHW / 255 + 0.2, r"tensor.clamp\(0, 1\)"),
        (CHW / 255 * float("nan"), "NaN or infinite"),
        (CHW.long(), "tensor of torch.int64"),
        ([RGB], "a list inside a list is not an image"),
        (None, "NoneType is not an image; give the path of an image"),
        (3, "int is not an image"),
        ("https://example.org/a.jpg", "nothing is downloaded"),
        ("missing.png", "missing.png"),
    ],
)
def test_what_is_no_image_is_refused(source: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_tensor(source)


def test_a_cut_off_pil_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with Image.open(tmp_path / "b.jpg") as image, pytest.raises(UserError, match="cannot be decoded"):
        to_tensor(image)
    with pytest.raises(UserError, match="cannot be decoded"):
        to_tensor(image)  # closed
    with pytest.raises(UserError, match=r"b\.jpg"):
        to_tensor(tmp_path / "b.jpg")
