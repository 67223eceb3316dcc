"""The IoU of each box with its object (IoU-aware detector, Wu et al., 2020, arXiv 1912.05992, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from singleshot.errors import UserError
from singleshot.losses.quality import KINDS, IoUQuality
from singleshot.outputs.output import ExtraOutput, Factor, ScoredOutput


@dataclass(frozen=True)
class IoUHead(ScoredOutput):
    """How the IoU of each box with its object is trained and used.

    `alpha`: the score is p^alpha * IoU^(1-alpha) (equation 5), or p * IoU if None. `loss`: "bce", "l2" or "l1"
    (section 3.1; Table 2 has the first two). `detach`: no gradient through the target IoU. `branch`: "box" is a
    convolution at the end of the boxes' tower; "own" is a separate tower like it, for the IoU alone. The paper names
    "own" without measuring it (section 3.1); it costs more.
    """

    alpha: float | None = 0.5
    loss: Literal["bce", "l2", "l1"] = "bce"
    detach: bool = True
    branch: Literal["box", "own"] = "box"

    def output(self) -> ExtraOutput:
        """Trained with `IoUQuality`, and a factor of the score."""
        factor = Factor("iou_alpha", self.alpha, title="IoU")
        loss = IoUQuality(self.loss, self.detach)
        return ExtraOutput("iou_logits", "iou", loss, factor, own_tower=self.branch == "own")

    def __post_init__(self) -> None:
        number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if self.alpha is not None and not (number and 0 <= self.alpha <= 1):
            raise UserError(
                f"alpha of the IoU-aware score: expected 0 to 1, or null for the plain product, got {self.alpha!r}"
            )
        if self.loss not in KINDS:
            raise UserError(f"loss of the IoU head: expected one of {', '.join(KINDS)}, got {self.loss!r}")
        if self.branch not in ("box", "own"):
            raise UserError(f"branch of the IoU head: expected box or own, got {self.branch!r}")
