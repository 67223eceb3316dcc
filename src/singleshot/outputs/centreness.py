"""How near the middle of its object an anchor lies (FCOS, Tian et al., 2019, arXiv 1904.01355, section 3.2)."""

import torch

from singleshot.losses.quality import quality_loss
from singleshot.outputs.output import ExtraOutput, Factor, ScoredOutput
from singleshot.structures import Matched, Predictions


class Centreness(ScoredOutput):
    """Learnt with cross-entropy; multiplied into the score, as in the paper, unless there is an `alpha`."""

    def output(self) -> ExtraOutput:
        """Its key, its loss, and how it counts in the score."""
        return ExtraOutput("centreness_logits", "centreness", centreness_loss, Factor("centreness_alpha", self.alpha))


def centreness_loss(predictions: Predictions, matched: Matched) -> torch.Tensor:
    """The target is sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)), distances to the sides (equation 3)."""
    centre = (matched.anchors[..., :2] + matched.anchors[..., 2:]) / 2
    sides = torch.stack([centre - matched.boxes[..., :2], matched.boxes[..., 2:] - centre]).clamp(min=0)
    target = (sides.amin(0) / sides.amax(0)).prod(-1).sqrt()  # [B, A]
    return quality_loss(predictions["centreness_logits"], target, matched)
