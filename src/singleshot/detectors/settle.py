"""Statistics of batch norm from photographs, for weights that came without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from singleshot.detectors.detector import Detector, ImageInput
from singleshot.errors import UserError
from singleshot.image_input import to_tensor


@dataclass
class _Seen:
    """Count, mean and variance of each channel of the maps that a norm has read."""

    count: int = 0
    mean: Tensor | float = 0.0
    var: Tensor | float = 0.0

    def add(self, features: Tensor) -> None:
        """Merge the statistics of more maps into those of all before (Chan et al., 1979)."""
        var, mean = (value.double() for value in torch.var_mean(features.float(), (0, 2, 3), correction=0))
        count = features.numel() // features.shape[1]
        share = count / (self.count + count)
        difference = mean - self.mean
        self.var = self.var + share * (var - self.var) + share * (1 - share) * difference.square()
        self.mean = self.mean + share * difference
        self.count += count


def settle_norm(detector: Detector, images: Iterable[ImageInput], *, batch_size: int = 8) -> None:
    """Give every batch norm the statistics of these images, in place. The detector finds the same as before.

    A batch norm scales and shifts each channel. The same scale and shift can be written with any mean and variance, so
    in eval mode nothing changes, up to rounding. In training mode a norm uses the statistics of its batch: a detector
    goes on from where it is only if its stored statistics are like those. Imported weights whose norms were folded into
    the convolutions (`.tflite`) have mean 0 and variance 1 instead. Some hundred photographs like those to be trained
    on are enough.

    Args:
        detector: its batch norms are changed. Its mode stays as it is.
        images: as `Detector.predict` takes them; each is read once.
        batch_size: images that the network sees at a time.

    Raises:
        UserError: there is no image, one cannot be read, or `network` was replaced.
    """
    if detector.network != detector._parts:
        raise UserError("the detector's network was replaced: settle the norms first (detector.network = None)")
    norms = [part for part in detector.modules() if isinstance(part, nn.BatchNorm2d) and part.affine]
    seen = {norm: _Seen() for norm in norms}
    tensors = (to_tensor(image, detector.deep_range).pixels for image in images)
    count = 0
    with _watched(detector, seen), torch.no_grad():
        while batch := list(islice(tensors, max(1, batch_size))):
            detector.network(detector._batch(batch, detector.preprocess).pixels)
            count += len(batch)
    if not count:
        raise UserError("settle_norm needs photographs, got none")
    for norm, statistics in seen.items():
        if statistics.count:
            _rewrite(norm, statistics)


def lacks_statistics(detector: Detector) -> bool:
    """Whether batch norms have mean 0 and variance 1: folded into the convolutions, or not trained yet."""
    norms = [part for part in detector.modules() if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None]
    return any(not norm.running_mean.any() and bool((norm.running_var == 1).all()) for norm in norms)  # type: ignore


@contextmanager
def _watched(detector: Detector, seen: dict[nn.BatchNorm2d, _Seen]) -> Iterator[None]:
    """Eval mode and float32, with all norms as layers of their own, and their inputs counted."""

    def look(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        seen[norm].add(inputs[0])

    modes = [(part, part.training) for part in detector.modules()]
    frozen = [norm for norm in seen if getattr(norm, "frozen", False)]  # folded into the convolution before
    precision, hooks = detector.precision, [norm.register_forward_pre_hook(look) for norm in seen]
    try:
        detector.eval().precision = "fp32"
        for norm in frozen:
            setattr(norm, "frozen", False)  # noqa: B010
        yield
    finally:
        detector.precision = precision
        for hook in hooks:
            hook.remove()
        for norm in frozen:
            setattr(norm, "frozen", True)  # noqa: B010
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def _rewrite(norm: nn.BatchNorm2d, seen: _Seen) -> None:
    """The same scale and shift with other statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var = torch.as_tensor(seen.mean), torch.as_tensor(seen.var)
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
    # From the stored numbers, which are rounded.
    norm.weight.copy_(scale * (norm.running_var.double() + norm.eps).sqrt())
    norm.bias.copy_(shift + norm.running_mean.double() * scale)
