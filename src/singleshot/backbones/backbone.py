"""What every backbone has in common: maps out, stages to freeze, names of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from singleshot.errors import UserError
from singleshot.layers import BatchNorm2d, Padding

NORMS = ("train", "eval", "frozen")


class Backbone(nn.Module):
    """Normalised pixels [B, 3, H, W] -> list of maps [B, C, h, w], finest first."""

    channels: tuple[int, ...]
    """Channels of each map."""
    strides: tuple[int, ...]
    """Input pixels per cell of each map."""
    has_norm: bool = True
    """Whether layers added after the backbone should use a norm after each convolution, as it does itself."""
    padding: Padding = "symmetric"
    """How layers with a stride that are added after the backbone should pad, as it does itself."""
    optional_weights: tuple[str, ...] = ()
    """Prefixes of keys that may be missing in a weights file. Such tensors keep their initial values."""
    ignored_weights: tuple[str, ...] = ("classifier.", "fc.")
    """Prefixes of keys in a weights file that are ignored: the classifier, and stages that were not built."""
    pixels: str | Sequence[Any] = "imagenet_rgb"
    """The pixel values that its weights expect, as the argument `pixels` of the builders has them.

    The class says what its usual weights expect. Weights that are loaded may say otherwise (`expect`).
    """
    pixels_told: bool = False
    """Whether the loaded weights say it."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The source maps."""

    @abstractmethod
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The trunk's modules in order, one stage for each stride. `frozen_stages` counts these."""

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert other layouts of this architecture's weights to this module's keys and shapes.

        A layout that implies other pixel values calls `expect`.
        """
        return weights

    def expect(self, pixels: str | Sequence[Any]) -> None:
        """Note the pixel values that the loaded weights expect."""
        self.pixels, self.pixels_told = pixels, True

    def fix(self, *, norm: str = "train", frozen_stages: int = 0) -> None:
        """Choose what does not train.

        Args:
            norm: "train" (batch statistics), "eval" (running statistics; scale and shift still train) or "frozen"
                (running statistics, scale and shift fixed). It has no effect on a network without batch norm.
            frozen_stages: how many stages are frozen. 0: none, 1: the stem (up to stride 2), 2: also the layers at
                stride 4, and so on.

        Raises:
            UserError: an unknown norm, or more stages than the backbone has.
        """
        if norm not in NORMS:
            raise UserError(f"norm {norm!r}: expected one of {', '.join(NORMS)}")
        stages = self.stages()
        if not 0 <= frozen_stages <= len(stages):
            raise UserError(
                f"frozen_stages={frozen_stages}: this backbone has {len(stages)} stages; give 0 to {len(stages)}"
            )
        if norm != "train":
            _freeze_norms(self, affine=norm == "frozen")
        for stage in stages[:frozen_stages]:
            for module in stage:
                module.requires_grad_(False)
                _freeze_norms(module, affine=True)


def _freeze_norms(module: nn.Module, *, affine: bool) -> None:
    for part in module.modules():
        if isinstance(part, BatchNorm2d):
            part.freeze(affine=affine)
        elif isinstance(part, _BatchNorm):
            raise TypeError(f"{type(part).__name__} cannot be frozen: use singleshot.layers.BatchNorm2d")
