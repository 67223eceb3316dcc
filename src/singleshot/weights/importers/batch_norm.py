"""Batch norm of other projects: another epsilon, or a norm where this package has none."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5
"""Of this package's batch norm, but for trunks whose papers have another."""


def absorb_epsilon(state: dict[str, Tensor], epsilon: float, *, but: str | None = None) -> None:
    """Change the scales of batch norm so that they give with our epsilon what they gave with `epsilon`.

    `but`: norms whose name begins with it have the other project's epsilon here too.
    """
    if epsilon == EPSILON:
        return
    for key in list(state):
        if key.endswith(".running_var") and (but is None or not key.startswith(but)):
            variance = state[key].double()
            factor = torch.where(variance + epsilon > 0, ((variance + EPSILON) / (variance + epsilon)).sqrt(), 1.0)
            weight = key.removesuffix("running_var") + "weight"
            state[weight] = (state[weight].double() * factor).float()


def folded(tensors: dict[str, Tensor], convolution: str, norm: str, epsilon: float) -> None:
    """Replace a convolution without bias and the norm after it by a convolution with bias, in place."""
    scale, shift, mean, variance = (
        tensors.pop(f"{norm}.{kind}").double() for kind in ("weight", "bias", "running_mean", "running_var")
    )
    tensors.pop(f"{norm}.num_batches_tracked", None)
    factor = scale / (variance + epsilon).sqrt()
    weight = tensors[f"{convolution}.weight"].double()
    tensors[f"{convolution}.weight"] = (weight * factor[:, None, None, None]).float()
    tensors[f"{convolution}.bias"] = (shift - mean * factor).float()
