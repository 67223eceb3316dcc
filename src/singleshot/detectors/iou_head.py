"""The IoU-aware detector's idea as a choice that any detector offers (Wu et al., 2020, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from singleshot.errors import UserError


@dataclass(frozen=True)
class IoUHead:
    """How the IoU of each box with its object is learnt and used.

    `alpha`: the score is p^alpha * IoU^(1-alpha) (equation 5), or p * IoU when None. `loss`: "bce" or "l2". `detach`:
    no gradient through the target IoU.
    """

    alpha: float | None = 0.5
    loss: Literal["bce", "l2"] = "bce"
    detach: bool = True

    def __post_init__(self) -> None:
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if self.alpha is not None and not (number and 0 <= self.alpha <= 1):
            raise UserError(
                f"alpha of the IoU-aware score: expected 0 to 1, or null for the product, got {self.alpha!r}"
            )
        if self.loss not in ("bce", "l2"):
            raise UserError(f"loss of the IoU head: expected bce or l2, got {self.loss!r}")
