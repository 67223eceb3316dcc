"""RefineDet's first module, the anchor refinement module (ARM), for any detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.criterion import Criterion
from singleshot.losses.regression import SmoothL1
from singleshot.matchers import IoUMatcher
from singleshot.structures import Anchors, Predictions, Targets

LOGITS, DELTAS = "anchor_logits", "anchor_deltas"
OUTPUTS = ({LOGITS: 2}, {DELTAS: 4})
"""What the head of a refiner gives for each anchor, by branch: (object, background), and how to move it."""


class AnchorRefiner(nn.Module):
    """Says of each anchor whether it shows an object at all, and moves it (RefineDet, Zhang et al., 2018, section 3).

    `head` reads the backbone's maps and gives `OUTPUTS`. `theta`: an anchor that is background
    with a probability above it is kept from the second module (negative anchor filtering); 1 keeps all. `iou`: from
    which overlap on an anchor is positive, and below which negative, for this module alone. `negatives`: hard negatives
    for each positive; `box_weight` multiplies the loss of the boxes.

    What the second module gets is detached: it trains this one only through the maps that both read.
    """

    def __init__(
        self,
        head: nn.Module,
        coder: DeltaCoder,
        *,
        theta: float = 0.99,
        iou: tuple[float, float] = (0.5, 0.5),
        negatives: float = 3.0,
        box_weight: float = 1.0,
        ignore_crowd: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < theta <= 1:
            raise UserError(f"theta is a probability of background, above 0 and at most 1 (no filter), got {theta}")
        self.head, self.coder, self.theta = head, coder, theta
        self.objectness = SoftmaxLoss(ratio=negatives, key=LOGITS)
        self.criterion = Criterion(
            IoUMatcher(positive=iou[0], negative=iou[1], ignore_crowd=ignore_crowd),
            {"anchor_classification": self.objectness, "anchor_box": SmoothL1(key=DELTAS)},
            coder,
            weights={"anchor_box": box_weight},
        )

    def forward(self, maps: list[Tensor]) -> Predictions:
        """Maps -> "anchor_logits" [B, A, 2] (object, background) and "anchor_deltas" [B, A, 4]."""
        return cast(Predictions, self.head(maps))

    def refine(self, predictions: Predictions, anchors: Anchors) -> tuple[Anchors, Tensor]:
        """The moved anchors, [B, A, 4], and which of them are kept, [B, A] bool."""
        moved = self.coder.decode(predictions[DELTAS].detach(), anchors.boxes)
        objectness = self.objectness.probabilities(predictions[LOGITS].detach())[..., 0]
        return replace(anchors, boxes=moved), objectness >= 1 - self.theta

    def losses(
        self,
        predictions: Predictions,
        anchors: Anchors,
        targets: Targets,
        counts: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Both terms, divided by this module's own positives; every object is of one class.

        `counts`: as in `Criterion`.
        """
        return self.criterion(predictions, anchors, _one_class(targets), counts=counts)

    def counts(self, predictions: Predictions, anchors: Anchors, targets: Targets) -> dict[str, Tensor]:
        """The number that each of the two terms is divided by."""
        return self.criterion.counts(predictions, anchors, _one_class(targets))


def _one_class(targets: Targets) -> Targets:
    return replace(targets, labels=targets.labels.clamp(max=0))
