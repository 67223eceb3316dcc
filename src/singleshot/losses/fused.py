"""The loss of every anchor and its gradient in one pass, piece by piece, without keeping intermediate tensors.

Written with plain operations, a focal loss of [B, A, K] logits holds about ten tensors of that size until the backward
pass. Here it holds only the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Formula = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Logits [N, n], labels [N], target [N] -> the loss of each anchor [N] and its gradient to the logits [N, n]."""

_CPU_PIECE = 1 << 16  # logits per piece on one thread: a few such tensors fit into the cache
_THREADS_PIECE = 1 << 20  # on several threads: each operation wakes all of them, so pieces must be large
_DEVICE_PIECE = 1 << 24  # on a GPU: far more than needed to keep it busy; 64 MiB per tensor


def anchor_losses(formula: Formula, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Logits [B, A, n], labels [B, A] int64, target [B, A] -> the loss of each anchor [B, A].

    `target` is what the formula needs: which anchors are positive, or how well each box fits. It is a constant.
    Differentiable once, with respect to the logits. Memory besides the result: the gradient, one tensor of the size of
    the logits, computed together with the loss; none under `no_grad`. An anchor whose loss is not used afterwards has a
    gradient of exactly 0, even if its own gradient would be infinite or NaN.
    """
    wanted = torch.is_grad_enabled() and logits.requires_grad
    losses: Tensor = _AnchorLosses.apply(formula, logits, labels, target, wanted)  # type: ignore[no-untyped-call]
    return losses


class _AnchorLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Formula, logits: Tensor, labels: Tensor, target: Tensor, wanted: bool) -> Tensor:
        losses, gradient = _in_pieces(formula, logits, labels, target, wanted)
        ctx.formula, ctx.gradient = formula, gradient
        ctx.save_for_backward(logits, labels, target)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None, None, None]:
        logits, labels, target = ctx.saved_tensors
        # The gradient is scaled in place, so it serves once. A second pass through a retained graph computes it again.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            _, gradient = _in_pieces(ctx.formula, logits, labels, target, wanted=True)
        rows, factors = gradient.view(-1, gradient.shape[-1]), upstream.reshape(-1, 1)
        for piece in _pieces(rows):
            # The fill is for infinite logits of anchors that do not count: 0 times NaN is not 0.
            rows[piece].mul_(factors[piece]).masked_fill_(factors[piece] == 0, 0.0)
        return None, gradient, None, None, None


def _in_pieces(
    formula: Formula, logits: Tensor, labels: Tensor, target: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    losses = logits.new_empty(labels.shape)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format) if wanted else None
    rows, loss_rows = logits.reshape(-1, logits.shape[-1]), losses.view(-1)
    gradient_rows = None if gradient is None else gradient.view(-1, logits.shape[-1])
    label_rows, target_rows = labels.reshape(-1), target.reshape(-1)
    for piece in _pieces(rows):
        loss_rows[piece], slope = formula(rows[piece], label_rows[piece], target_rows[piece])
        if gradient_rows is not None:
            gradient_rows[piece] = slope
    return losses, gradient


def _pieces(rows: Tensor) -> Iterator[slice]:
    if rows.device.type != "cpu":
        size = _DEVICE_PIECE
    else:
        size = _CPU_PIECE if torch.get_num_threads() == 1 else _THREADS_PIECE
    step = max(1, size // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        yield slice(start, start + step)
