"""The images that a detector gets, and their check."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from singleshot.errors import UserError
from singleshot.image_input import refuse_values


def check_images(images: Sequence[Tensor]) -> None:
    """Refuse images that are not [3, H, W], float in 0..1 or uint8. The message names the image.

    The values of float images are checked where they are: on the CPU this does not wait for the GPU. On the GPU it
    waits once for all of them. Whatever is traced is not checked.
    """
    if not len(images):
        raise UserError("no images: expected a list of at least one tensor [3, H, W]")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            came = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise UserError(f"image {i}: expected a tensor [3, H, W], got {came}")
        if not image.is_floating_point() and image.dtype != torch.uint8:
            raise UserError(f"image {i}: expected float in 0..1 or uint8, got {image.dtype}")
    places = [i for i, image in enumerate(images) if image.is_floating_point()]
    if not places or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return
    device = images[places[0]].device
    bounds = [torch.stack(images[i].detach().aminmax()).to(device, torch.float32) for i in places]
    for i, (low, high) in zip(places, torch.stack(bounds).tolist(), strict=True):
        refuse_values(low, high, f"image {i}: ")
