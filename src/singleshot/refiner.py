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
"""What the head of a refiner predicts for each anchor, by branch: (object, background), and how to move it."""


class AnchorRefiner(nn.Module):
    """Predicts whether each anchor shows any object, and moves it (RefineDet, Zhang et al., 2018, section 3).

    Args:
        head: reads the backbone's maps and predicts `OUTPUTS`.
        theta: if the probability of background is above it, the second module does not get the anchor (negative anchor
            filtering). 1 keeps all anchors.
        iou: an anchor with an IoU of at least the first number is positive, below the second negative, for this module
            alone.
        negatives: hard negatives for each positive.
        box_weight: factor of the box loss.

    The second module gets detached anchors: it trains this module only through the maps that both read.
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
            raise UserError(
                f"theta: expected a probability of background, above 0 and at most 1 (1 filters nothing), got {theta}"
            )
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
        """The moved anchors [B, A, 4], and which of them are kept [B, A] bool."""
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
        """Both loss terms, each divided by this module's own positives. All objects are one class.

        `counts`: as in `Criterion`.
        """
        return self.criterion(predictions, anchors, _one_class(targets), counts=counts)

    def counts(self, predictions: Predictions, anchors: Anchors, targets: Targets) -> dict[str, Tensor]:
        """The number that each of the two loss terms is divided by."""
        return self.criterion.counts(predictions, anchors, _one_class(targets))


def _one_class(targets: Targets) -> Targets:
    return replace(targets, labels=targets.labels.clamp(max=0))
