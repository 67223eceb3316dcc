"""How near an anchor lies to the centre of its object (FCOS, Tian et al., 2019, arXiv 1904.01355, section 3.2)."""

import torch

from singleshot.losses.quality import quality_loss
from singleshot.outputs.output import ExtraOutput, Factor, ScoredOutput
from singleshot.structures import Matched, Predictions


class Centreness(ScoredOutput):
    """Trained with cross-entropy. Without an `alpha` it is multiplied into the score, as in the paper."""

    def output(self) -> ExtraOutput:
        """Its key, its loss, and how it counts in the score."""
        return ExtraOutput("centreness_logits", "centreness", centreness_loss, Factor("centreness_alpha", self.alpha))


def centreness_loss(predictions: Predictions, matched: Matched) -> torch.Tensor:
    """The target is sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of the distances to the sides (eq. 3)."""
    centre = (matched.anchors[..., :2] + matched.anchors[..., 2:]) / 2
    sides = torch.stack([centre - matched.boxes[..., :2], matched.boxes[..., 2:] - centre]).clamp(min=0)
    target = (sides.amin(0) / sides.amax(0)).prod(-1).sqrt()  # [B, A]
    return quality_loss(predictions["centreness_logits"], target, matched)
