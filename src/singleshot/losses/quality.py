"""The loss of the predicted IoU, which says how well a box fits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.ops.boxes import aligned_iou
from singleshot.structures import Matched, Predictions

KINDS = ("bce", "l2", "l1")


@dataclass(frozen=True)
class IoUQuality:
    """Loss between the sigmoid of a logit and the IoU of the predicted box with its object (IoU-aware paper, eq. 3).

    Summed over the positives. The target is the IoU of the decoded prediction and the matched box, in float32 pixels.
    `loss` "bce" is cross-entropy with that soft target, "l2" the squared difference of predicted and true IoU, "l1"
    their absolute difference. Table 2 has the first two; the paper does not write them out.

    With `detach` the target is a constant. Without it, gradients also flow into the box. The derivative of the
    cross-entropy with respect to its target is minus the logit. So the box is pulled to a higher IoU where more than
    0.5 is predicted, and to a lower one where less is predicted.
    """

    loss: str = "bce"
    detach: bool = True
    key: str = "iou_logits"
    deltas: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        deltas = predictions[self.deltas]
        target = matched.iou(deltas) if self.detach else aligned_iou(matched.decoded(deltas), matched.boxes)
        return quality_loss(predictions[self.key], target, matched, self.loss)

    def __post_init__(self) -> None:
        if self.loss not in KINDS:
            raise UserError(
                "IoUQuality: loss must be 'bce' (cross-entropy), 'l2' (squared difference) or 'l1' (absolute "
                f"difference), got {self.loss!r}"
            )


def quality_loss(logits: Tensor, target: Tensor, matched: Matched, kind: str = "bce") -> Tensor:
    """Loss between the sigmoid of a logit [B, A, 1] and a target from 0 to 1 [B, A], summed over the positives.

    `kind`: "bce" is cross-entropy with the soft target, "l2" the squared difference, "l1" the absolute difference.
    """
    # Logits of other anchors are replaced before the arithmetic, since they may have any value, also NaN.
    x = torch.where(matched.positive, logits[..., 0], 0.0).float()
    if kind == "l2":
        loss = (x.sigmoid() - target).square()
    elif kind == "l1":
        loss = (x.sigmoid() - target).abs()
    else:
        loss = F.softplus(-x) + (1 - target) * x  # -t log p - (1 - t) log(1 - p), for logits of any size
    return torch.where(matched.positive, loss, 0.0).sum()
