"""Loss and gradient in one go, piece by piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from singleshot.losses import fused
from singleshot.losses.fused import anchor_losses


def squares(logits: Tensor, labels: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    weight = (labels + 1.0) * torch.where(positive, 2.0, 1.0)
    return logits.square().sum(1) * weight, 2 * logits * weight[:, None]


def case(batch: int = 2, anchors: int = 23, logits: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, anchors, logits, generator=generator, requires_grad=True)
    positive = torch.rand(batch, anchors, generator=generator) < 0.5
    return x, torch.randint(0, 3, (batch, anchors), generator=generator), positive


@pytest.mark.parametrize("piece", [1, 7, 50, 1 << 20])
def test_pieces_of_any_size_give_the_same(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, positive = case()
    weight = (labels + 1.0) * torch.where(positive, 2.0, 1.0)
    upstream = torch.rand(2, 23, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(fused, "_CPU_PIECE", piece)
    monkeypatch.setattr(fused, "_THREADS_PIECE", piece)
    losses = anchor_losses(squares, x, labels, positive)
    torch.testing.assert_close(losses, x.square().sum(-1) * weight)
    (gradient,) = torch.autograd.grad(losses, x, upstream)
    torch.testing.assert_close(gradient, 2 * x * (weight * upstream)[..., None])


def test_a_gradient_that_is_not_wanted_is_not_kept() -> None:
    x, labels, positive = case()
    assert not anchor_losses(squares, x.detach(), labels, positive).requires_grad
    with torch.no_grad():
        assert not anchor_losses(squares, x, labels, positive).requires_grad


def test_nothing_of_an_anchor_without_use() -> None:
    x, labels, positive = case()
    with torch.no_grad():
        x[0, 3] = torch.inf
    losses = anchor_losses(squares, x, labels, positive)
    finite = torch.where(losses.isfinite(), losses, 0.0)
    (gradient,) = torch.autograd.grad(finite.sum(), x)
    assert (gradient[0, 3] == 0).all()
    assert gradient.isfinite().all()


def test_differentiable_once_and_a_second_time_is_an_error() -> None:
    x, labels, positive = case()
    (gradient,) = torch.autograd.grad(anchor_losses(squares, x, labels, positive).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


def test_an_input_that_was_changed_since_is_noticed() -> None:
    x, labels, positive = case()
    logits = x * 1.0
    loss = anchor_losses(squares, logits, labels, positive).sum()
    logits.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
