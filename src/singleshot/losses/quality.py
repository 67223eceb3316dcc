"""How well a box fits: the loss of the predicted IoU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from singleshot.errors import UserError
from singleshot.ops.boxes import aligned_iou
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class IoUQuality:
    """Loss between the sigmoid of a logit and the IoU of the predicted box with its object (IoU-aware paper, eq. 3).

    Over positives, summed. The target is the IoU of the decoded prediction and the matched box, in float32 pixels.
    `loss` "bce" is cross-entropy with that soft target; "l2" the squared difference of predicted and true IoU (Table 2;
    the paper does not write it out). With `detach` the target is a constant. Without, gradients flow into the box as
    well: the derivative of the cross-entropy in its target is minus the logit, so the box is pulled to a higher IoU
    where more than 0.5 is predicted, and pushed away below.
    """

    loss: str = "bce"
    detach: bool = True
    key: str = "iou_logits"
    deltas: str = "box_deltas"

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over the positives of all images."""
        # Logits and deltas of other anchors are put aside before the arithmetic: theirs may be anything.
        logits = torch.where(matched.positive, predictions[self.key][..., 0], 0.0).float()
        deltas = predictions[self.deltas]
        target = matched.iou(deltas) if self.detach else aligned_iou(matched.decoded(deltas), matched.boxes)
        if self.loss == "l2":
            loss = (logits.sigmoid() - target).square()
        else:
            loss = F.softplus(-logits) + (1 - target) * logits  # -t log p - (1 - t) log(1 - p), for logits of any size
        return torch.where(matched.positive, loss, 0.0).sum()

    def __post_init__(self) -> None:
        if self.loss not in ("bce", "l2"):
            raise UserError(
                f"IoUQuality: loss is 'bce' (cross-entropy) or 'l2' (squared difference), got {self.loss!r}"
            )
