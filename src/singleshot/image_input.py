"""Converts an image in any usual form to the form that a detector takes. Only tensors need PyTorch."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from singleshot.data.deep import DeepRange
from singleshot.data.images import BUDGET, read_reduced, to_rgb
from singleshot.errors import UserError
from singleshot.paths import to_path
from singleshot.reduced import Reduced, Seen

if TYPE_CHECKING:
    from torch import Tensor

Picture = NDArray[np.uint8] | NDArray[np.float32]
V = TypeVar("V")
A = TypeVar("A", bound=NDArray[Any])


@dataclass(frozen=True, eq=False)
class Given(Generic[V]):
    """One image as a detector takes it."""

    pixels: V
    path: str | None  # its file, if any
    reduced: Reduced  # how the pixels lie in the image; those of a large file may be fewer


_KINDS = (
    "give the path of an image, a PIL image, a numpy array [H, W, 3] (uint8, RGB) or [H, W] (uint8, grey), "
    "a tensor [3, H, W] (float in [0, 1] or uint8), or a list of them"
)
_RANGE = "for uint16 say once what is black and white: detector.deep_range = (0, 4095)"
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_SLACK = 1e-3  # tolerance for the rounding of a float image that was made from 8 bits


def to_tensor(source: object, deep_range: DeepRange | None = None, *, seen: Seen | None = None) -> Given[Tensor]:
    """Convert one image to a tensor [3, H, W] in RGB, uint8 or float32 in [0, 1].

    For paths and PIL images, EXIF orientation, palettes, alpha and 16 bits are handled. Arrays are uint8, [H, W, 3] in
    RGB order or [H, W] in grey. OpenCV's BGR cannot be distinguished from RGB: reverse it first, `image[..., ::-1]`.
    Tensors are [3, H, W] or [1, H, W]. They keep their device, and floats of any width become float32.

    `deep_range` says which values are black and white where there are more than 8 bits: in files, PIL images, and
    arrays and tensors of uint16, which are taken only with it. With `seen`, large JPEG files are decoded smaller
    (`reduced.reduced_for`).

    Raises UserError for another type, shape or dtype, for values out of range, and for files that are not images.
    """
    import torch

    if isinstance(source, torch.Tensor):
        tensor = _from_tensor(source, deep_range)
        return Given(tensor, None, Reduced((int(tensor.shape[-2]), int(tensor.shape[-1]))))
    found = _pixels(source, deep_range, seen)
    # A copy of a caller's array, so reversed, cropped and read-only ones are fine. The planes are a view of it.
    picture = found.pixels if found.path is not None else np.array(found.pixels, order="C", copy=True)
    return Given(torch.from_numpy(picture).permute(2, 0, 1), found.path, found.reduced)


def to_picture(source: object, deep_range: DeepRange | None = None, *, seen: Seen | None = None) -> Given[Picture]:
    """Convert one image to an array [H, W, 3] in RGB, uint8 or float32 in [0, 1].

    Takes what `to_tensor` takes. The array may share memory with the input, so only read it.

    Raises UserError as `to_tensor`.
    """
    if _is_tensor(source):
        return _whole(np.asarray(_from_tensor(source, deep_range).cpu()).transpose(1, 2, 0))
    return cast(Given[Picture], _pixels(source, deep_range, seen))


def _is_tensor(source: object) -> bool:
    torch = sys.modules.get("torch")  # if the user has a tensor, it is imported already
    return torch is not None and isinstance(source, torch.Tensor)


def _whole(picture: A) -> Given[A]:
    return Given(picture, None, Reduced((picture.shape[0], picture.shape[1])))


def _pixels(source: object, deep_range: DeepRange | None, seen: Seen | None) -> Given[NDArray[np.uint8]]:
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if _ADDRESS.match(path):
            raise UserError(f"{path} is a web address, and nothing is downloaded here; save the image and give it")
        picture, reduced = read_reduced(to_path(path), seen, deep_range=deep_range, warn=True)
        return Given(picture, path, reduced)
    if isinstance(source, Image.Image):
        return _whole(_from_pil(source, deep_range))
    if isinstance(source, np.ndarray):
        return _whole(_from_array(source, deep_range))
    if isinstance(source, list | tuple):
        raise UserError(f"a {type(source).__name__} inside a list is not an image; {_KINDS}")
    raise UserError(f"{type(source).__name__} is not an image; {_KINDS}")


def _from_pil(image: Image.Image, deep_range: DeepRange | None) -> NDArray[np.uint8]:
    if 0 in image.size:
        raise UserError(f"a PIL image of {image.size[0]}x{image.size[1]} has no pixels; give one of at least 1x1")
    try:
        with BUDGET.hold(image.width * image.height):
            image.load()
            return to_rgb(image, deep_range, warn_as=f"a PIL image of mode {image.mode}")
    except Exception as error:  # Pillow raises almost anything on files that are truncated or closed
        raise UserError(
            f"the PIL image of mode {image.mode} cannot be decoded ({error or type(error).__name__}); check its file"
        ) from error


def _from_array(array: NDArray[Any], deep_range: DeepRange | None) -> NDArray[np.uint8]:
    shape = list(array.shape)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim == 4:
        raise UserError(f"an array of shape {shape} is a batch; give a list of its images: list(array)")
    if array.ndim != 3:
        raise UserError(f"an array of shape {shape} is not an image; expected [H, W, 3] in RGB or [H, W] in grey")
    if array.shape[2] not in (1, 3):
        if array.shape[0] in (1, 3):
            raise UserError(
                f"an array of shape {shape} has the channels first; expected [H, W, 3]: array.transpose(1, 2, 0)"
            )
        if array.shape[2] == 4:
            raise UserError(
                f"an array of shape {shape} has an alpha channel; expected [H, W, 3]: array[..., :3] drops it"
            )
        raise UserError(f"an array of shape {shape} is not an image; expected [H, W, 3] in RGB or [H, W] in grey")
    if 0 in array.shape:
        raise UserError(f"an array of shape {shape} has no pixels")
    if array.dtype == np.uint16 and deep_range is not None:
        array = deep_range.to_8_bits(array)
    if array.dtype != np.uint8:
        hint = {
            "f": "(array * 255).round().astype(np.uint8) if it is in [0, 1]",
            "u": f"(array >> 8).astype(np.uint8) if it has 16 bits, or {_RANGE}",
            "b": "array.astype(np.uint8) * 255",
        }.get(array.dtype.kind, "array.astype(np.uint8) if it is in [0, 255]")
        raise UserError(f"an array of {array.dtype} is not an image; expected uint8, 0 to 255: {hint}")
    pixels = array.astype(np.uint8, copy=False)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _from_tensor(tensor: Any, deep_range: DeepRange | None) -> Tensor:
    import torch

    shape = list(tensor.shape)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 4:
        raise UserError(f"a tensor of shape {shape} is a batch; give a list of its images: list(tensor)")
    if tensor.ndim != 3:
        raise UserError(f"a tensor of shape {shape} is not an image; expected [3, H, W] in RGB")
    if tensor.shape[0] not in (1, 3):
        if tensor.shape[2] in (1, 3):
            raise UserError(
                f"a tensor of shape {shape} has the channels last; expected [3, H, W]: tensor.permute(2, 0, 1)"
            )
        if tensor.shape[0] == 4:
            raise UserError(f"a tensor of shape {shape} has an alpha channel; expected [3, H, W]: tensor[:3] drops it")
        raise UserError(f"a tensor of shape {shape} is not an image; expected [3, H, W] in RGB")
    if tensor.numel() == 0:
        raise UserError(f"a tensor of shape {shape} has no pixels")
    if tensor.dtype == torch.uint16 and deep_range is not None:
        tensor = torch.from_numpy(deep_range.to_8_bits(tensor.cpu().numpy())).to(tensor.device)
    if tensor.dtype != torch.uint8:
        tensor = _checked_floats(tensor)
    shown: Tensor = tensor.detach().expand(3, -1, -1)
    return shown


def _checked_floats(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise UserError(
            f"a tensor of {tensor.dtype} is not an image; expected floats in [0, 1] or uint8: "
            f"tensor.to(torch.uint8) if it is in [0, 255]; {_RANGE}"
        )
    tensor = tensor.detach().float()
    low, high = tensor.aminmax()
    refuse_values(float(low), float(high))
    return tensor


def refuse_values(low: float, high: float, where: str = "") -> None:
    """Raise `UserError` if the lowest and highest value of a float image are not in [0, 1]. `where` starts it."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{where}a tensor with NaN or infinite values is not an image; expected floats in [0, 1]")
    if low < -_SLACK:
        raise UserError(
            f"{where}a tensor with values from {low:.4g} to {high:.4g} is not an image; expected floats in [0, 1]: "
            "do not normalise the image, since the detector does that itself"
        )
    if high > 1 + _SLACK:
        hint = "tensor / 255" if high > 2 else "tensor.clamp(0, 1)"
        raise UserError(
            f"{where}a float tensor with values from {low:.4g} to {high:.4g} is not an image; "
            f"expected floats in [0, 1]: {hint}"
        )
